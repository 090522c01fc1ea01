// What the page asks of the robot. An answer counts once the robot has said so.

async function asked(path, options) {
  let reply
  try {
    reply = await fetch(path, { credentials: "same-origin", ...options })
  } catch {
    throw new Error("The robot does not answer: is `edge-agent label` running, and the tunnel open?")
  }
  const value = await reply.json()
  if (!reply.ok) throw new Error(value.error)
  return value
}

export const get = (path) => asked(path)

export const post = (path, value) =>
  asked(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(value),
  })

let last = Promise.resolve()

// Answers leave in their order, one at a time, while the person goes on.
export function inOrder(work) {
  const done = last.then(work)
  last = done.catch(() => {})
  return done
}
