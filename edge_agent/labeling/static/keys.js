// One key for each class: digits, then the letters that no other action has.

const KEYS = [..."123456789qwertyiopdfghjklzcvbm"]

export const keyOf = (number) => KEYS[number] ?? ""

export const classOf = (key) => KEYS.indexOf(key.toLowerCase())

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-")) made.setAttribute(key, value)
    else made[key] = value
  }
  made.append(...children)
  return made
}

export const percent = (share) => `${Math.round(share * 100)} %`
