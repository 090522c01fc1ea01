// The frames one after the other: a key, an answer, the next frame. Pictures are fetched ahead.

import { get, inOrder, post } from "./api.js"
import { Boxes } from "./boxes.js"
import { classOf, element, keyOf, percent } from "./keys.js"
import { rankingWords, showProgress } from "./progress.js"

const AHEAD = 5 // frames that are fetched before they are asked about
const AGAIN_MS = 400
const $ = (id) => document.getElementById(id)

let state = null
const shown = [] // {frame, image, boxes, label, answered, saved}
let at = 0
let fetching = false
const boxes = new Boxes($("boxes"), { changed: showChoice, told: tell })

function tell(words) {
  $("told").textContent = words
}

function fail(error) {
  $("problem").textContent = error ? error.message : ""
}

function update(next) {
  state = next
  showProgress(state)
  $("undo").disabled = !state.can_undo
  if (!shown[at]) $("empty").textContent = emptyWords()
}

async function fill() {
  const ahead = shown.slice(at).filter((item) => !item.answered)
  if (fetching || ahead.length > AHEAD) return
  fetching = true
  try {
    const have = shown.filter((item) => !item.saved).map((item) => item.frame.id)
    const { frames } = await get(`/next?have=${have.join(",")}`)
    const wasEmpty = !shown[at]
    frames.forEach((frame) => shown.push(itemOf(frame)))
    if (wasEmpty && frames.length) show()
    fail(null)
    if (!shown[at] || state?.ranking.looked_at < state?.ranking.chosen) update(await get("/state"))
  } catch (error) {
    fail(error)
  }
  fetching = false
  if (!shown[at]) setTimeout(fill, AGAIN_MS)
}

function itemOf(frame) {
  const image = element("img", { src: `/frame/${frame.id}.jpg`, alt: "", draggable: false })
  image.decode().catch(() => {})
  const given = frame.boxes.length ? frame.boxes.map(({ score, ...box }) => box) : frame.proposed
  const drawn = given.filter((box) => box.x0 !== undefined).map((box) => ({ ...box }))
  return { frame, image, boxes: drawn, label: frame.label, answered: false, saved: false }
}

function show() {
  const item = shown[at]
  $("canvas").hidden = !item
  $("empty").hidden = Boolean(item)
  $("canvas").querySelector("img")?.remove()
  if (!item) {
    $("empty").textContent = emptyWords()
    $("about").textContent = ""
    showChoice()
    return
  }
  const { frame, image } = item
  image.alt = `Frame of ${frame.source}`
  $("canvas").prepend(image)
  if (state.boxes) {
    const place = () => {
      const [width, height] = [frame.width || image.naturalWidth, frame.height || image.naturalHeight]
      if (shown[at] === item) boxes.show(item.boxes, width, height, state.classes, boxes.current ?? state.classes[0])
    }
    if (frame.width) place()
    else image.decode().then(place, () => {})
  }
  $("about").textContent = `${frame.source}, ${timeOf(frame.stamp_ns)}. ${modelWords(frame)}`
  tell(modelWords(frame))
  showChoice()
}

function timeOf(stampNs) {
  const date = new Date(Number(BigInt(stampNs) / 1000000n))
  return date.getFullYear() > 1971 ? date.toLocaleString() : `${(Number(stampNs) / 1e9).toFixed(1)} s`
}

function modelWords(frame) {
  if (frame.version === null) return "No model was asked."
  const [best] = frame.proposed
  if (state.boxes) {
    const count = frame.proposed.filter((one) => one.x0 !== undefined).length
    return `Version ${frame.version} proposes ${count || "no"} box${count === 1 ? "" : "es"}.`
  }
  return best ? `Version ${frame.version} says ${best.label}, ${percent(best.score)}.` : ""
}

function emptyWords() {
  if (!state) return "One moment."
  const { listed, looked_at, chosen, frames, waiting } = state.ranking
  if (!listed || looked_at < chosen) return rankingWords(state.ranking)
  if (waiting) return "One moment."
  return frames ? "All frames that were chosen are answered." : "This robot has kept no frame without a label."
}

// What is chosen now: the buttons of the classes, and whether there is something to accept.
function showChoice() {
  const item = shown[at]
  const chosen = state?.boxes ? boxes.current : item?.answered && item.label
  const scores = new Map(item?.frame.proposed.map((one) => [one.label, one.score]))
  const best = state?.boxes ? null : item?.frame.proposed[0]?.label
  for (const button of $("classes").children) {
    const { name } = button.dataset
    button.setAttribute("aria-pressed", String(name === chosen))
    button.classList.toggle("best", name === best)
    button.querySelector(".score").textContent = !state.boxes && scores.has(name) ? percent(scores.get(name)) : ""
    button.disabled = !item
  }
  const acceptable = item && (state.boxes || item.label || best)
  $("accept").disabled = !acceptable
  $("accept").lastChild.textContent = acceptWords(item, best)
  for (const id of ["skip", "unsure", "forward", "add"]) $(id).disabled = !item
  $("remove").disabled = !boxes.selected
  $("back").disabled = at === 0
}

function acceptWords(item, best) {
  if (!item) return "Accept"
  if (!state.boxes) return item.label || best ? `Accept: ${item.label || best}` : "Accept"
  const count = item.boxes.length
  return count ? `Accept ${count} box${count > 1 ? "es" : ""}` : "Accept: nothing is there"
}

function accept() {
  const item = shown[at]
  if (!item || $("accept").disabled) return
  if (state.boxes) give("label")
  else give("label", item.label || item.frame.proposed[0].label)
}

function choose(number) {
  const name = state?.classes[number]
  if (name === undefined || !shown[at]) return
  if (!state.boxes) give("label", name)
  else {
    boxes.setClass(name)
    showChoice()
  }
}

function give(kind, label) {
  const item = shown[at]
  if (!item) return
  const answer = { id: item.frame.id, kind }
  if (kind === "label" && state.boxes) answer.boxes = item.boxes.map(({ label, x0, y0, x1, y1 }) => ({ label, x0, y0, x1, y1 }))
  else if (kind === "label") answer.label = item.label = label
  item.answered = true
  inOrder(() => post("/answer", answer)).then(
    (next) => {
      item.saved = true
      fail(null)
      update(next)
      showChoice()
    },
    (error) => {
      item.answered = false
      at = shown.indexOf(item)
      show()
      fail(error)
    },
  )
  move(1)
}

function undo() {
  if ($("undo").disabled) return
  inOrder(() => post("/undo", {})).then((next) => {
    update(next)
    if (!next.frame) return
    let place = shown.findLastIndex((item) => item.frame.id === next.frame.id)
    if (place < 0) shown.splice((place = at), 0, itemOf(next.frame))
    shown[place].answered = shown[place].saved = false
    at = place
    show()
    tell("Taken back. " + modelWords(next.frame))
  }, fail)
}

function move(by) {
  at = Math.min(Math.max(at + by, 0), shown.length)
  if (boxes.selected || document.activeElement?.classList.contains("box")) $("stage").focus({ preventScroll: true })
  show()
  fill()
}

const ACTIONS = {
  accept,
  skip: () => give("skip"),
  unsure: () => give("unsure"),
  undo,
  back: () => move(-1),
  forward: () => move(1),
  add: () => boxes.add(),
  remove: () => boxes.remove(),
}
const BY_KEY = { Enter: "accept", s: "skip", n: "unsure", u: "undo", ArrowLeft: "back", ArrowRight: "forward" }
const BY_KEY_WITH_BOXES = { a: "add", x: "remove" }

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.repeat && event.key === "Enter") return
  const onButton = event.target.closest("button, summary")
  if (onButton && (event.key === "Enter" || event.key === " ")) return
  if (state?.boxes && boxes.key(event)) {
    event.preventDefault()
    return
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key
  const action = BY_KEY[key] ?? (state?.boxes ? BY_KEY_WITH_BOXES[key] : undefined)
  if (action) {
    event.preventDefault()
    if (!$(action).disabled) ACTIONS[action]()
  } else if (event.key.length === 1 && !event.altKey && classOf(event.key) >= 0) choose(classOf(event.key))
}

function classButton(name, number) {
  const key = keyOf(number)
  const button = element("button", { type: "button" })
  button.dataset.name = name
  if (key) button.setAttribute("aria-keyshortcuts", key)
  if (key) button.append(element("kbd", { textContent: key.toUpperCase() }))
  button.append(element("span", { className: "name", textContent: name }), element("span", { className: "score" }))
  button.addEventListener("click", () => choose(number))
  return button
}

async function begin() {
  history.replaceState(null, "", "/") // the token stays in the cookie alone
  try {
    const first = await get("/state")
    document.body.classList.toggle("with-boxes", first.boxes)
    $("tools").hidden = !first.boxes
    $("choices-title").textContent = first.boxes ? "Class of the box" : "What is it?"
    $("classes").replaceChildren(...first.classes.map(classButton))
    boxes.current = first.classes[0]
    update(first)
    showChoice()
  } catch (error) {
    fail(error)
    return
  }
  for (const [id, action] of Object.entries(ACTIONS)) $(id).addEventListener("click", action)
  document.addEventListener("keydown", pressed)
  fill()
}

begin()
