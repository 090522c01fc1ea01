// Boxes over the picture: drawn, moved and resized by mouse, touch and keyboard.
// Corners are pixels of the robot's own frame, whatever size the page shows it in.

import { element, percent } from "./keys.js"

const LEAST = 3 // pixels of the frame: less is a click, no box
const COLORS = 8
const HANDLES = ["nw", "ne", "sw", "se"]

export class Boxes {
  // layer: the element over the picture; changed: called after every change; told: says aloud.
  constructor(layer, { changed, told }) {
    Object.assign(this, { layer, changed, told, list: [], selected: null, width: 1, height: 1 })
    layer.addEventListener("pointerdown", (event) => this.#begin(event))
  }

  show(list, width, height, classes, current) {
    Object.assign(this, { list, width, height, classes, current, selected: null })
    this.draw()
  }

  draw() {
    const focused = this.selected
    this.layer.replaceChildren(...this.list.map((box, number) => this.#drawn(box, number)))
    if (focused) this.#nodeOf(focused)?.focus({ preventScroll: true })
  }

  setClass(label) {
    this.current = label
    if (!this.selected) return
    this.selected.label = label
    this.#own(this.selected)
  }

  add() {
    const [w, h] = [this.width / 4, this.height / 4]
    const [x0, y0] = [(this.width - w) / 2, (this.height - h) / 2]
    const box = { label: this.current, x0, y0, x1: x0 + w, y1: y0 + h }
    this.list.push(box)
    this.selected = box
    this.#own(box)
    this.told(`A box of ${box.label} in the middle; arrows move it`)
  }

  remove() {
    if (!this.selected) return
    const place = this.list.indexOf(this.selected)
    this.told(`${this.selected.label} removed`)
    this.list.splice(place, 1)
    this.selected = this.list[Math.min(place, this.list.length - 1)] ?? null
    this.draw()
    this.changed()
  }

  select(box) {
    if (this.selected === box) return
    this.selected = box
    for (const [place, node] of [...this.layer.children].entries()) {
      node.classList.toggle("selected", this.list[place] === box)
    }
    if (box) this.current = box.label
    this.changed()
  }

  // Returns whether the key was for a box.
  key(event) {
    const box = this.selected
    if (!box) return false
    if (event.key === "Delete" || event.key === "Backspace") {
      this.remove()
      return true
    }
    if (event.key === "Escape") {
      this.select(null)
      this.layer.closest("[tabindex]").focus()
      return true
    }
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? []
    if (dx === undefined) return false
    const step = event.altKey ? 1 : Math.max(1, Math.round(this.width / 100))
    if (event.shiftKey) this.#resize(box, "se", dx * step, dy * step)
    else this.#move(box, dx * step, dy * step)
    this.#own(box)
    return true
  }

  #own(box) {
    delete box.score
    this.draw()
    this.changed()
  }

  #drawn(box, number) {
    const node = element("div", { className: `box k${this.classes.indexOf(box.label) % COLORS}`, tabIndex: 0 })
    const share = box.score === undefined ? "" : ` ${percent(box.score)}`
    const place = ["x0", "y0", "x1", "y1"].map((name) => Math.round(box[name]))
    node.setAttribute("role", "button")
    const by = share ? `proposed by the model,${share}` : "yours"
    node.setAttribute("aria-label", `Box ${number + 1}: ${box.label}, ${by}, from ${place[0]}, ${place[1]} to ${place[2]}, ${place[3]}`)
    node.classList.toggle("proposed", Boolean(share))
    node.classList.toggle("selected", box === this.selected)
    node.classList.toggle("top", box.y0 < this.height / 12)
    node.append(element("span", { textContent: box.label + share }))
    node.append(...HANDLES.map((name) => element("i", { className: name })))
    this.#place(node, box)
    node.addEventListener("focus", () => this.select(box))
    return node
  }

  #place(node, box) {
    node.style.left = `${(box.x0 / this.width) * 100}%`
    node.style.top = `${(box.y0 / this.height) * 100}%`
    node.style.width = `${((box.x1 - box.x0) / this.width) * 100}%`
    node.style.height = `${((box.y1 - box.y0) / this.height) * 100}%`
  }

  #nodeOf(box) {
    return this.layer.children[this.list.indexOf(box)]
  }

  #move(box, dx, dy) {
    const x = Math.min(Math.max(dx, -box.x0), this.width - box.x1)
    const y = Math.min(Math.max(dy, -box.y0), this.height - box.y1)
    box.x0 += x
    box.x1 += x
    box.y0 += y
    box.y1 += y
  }

  #resize(box, corner, dx, dy) {
    const [x, y] = [corner.includes("w") ? "x0" : "x1", corner.includes("n") ? "y0" : "y1"]
    const limit = (value, low, high) => Math.min(Math.max(value, low), high)
    box[x] = x === "x0" ? limit(box.x0 + dx, 0, box.x1 - LEAST) : limit(box.x1 + dx, box.x0 + LEAST, this.width)
    box[y] = y === "y0" ? limit(box.y0 + dy, 0, box.y1 - LEAST) : limit(box.y1 + dy, box.y0 + LEAST, this.height)
  }

  #begin(event) {
    if (event.button !== 0 || !this.current) return
    event.preventDefault()
    const node = event.target.closest(".box")
    const corner = HANDLES.find((name) => event.target.classList.contains(name))
    const at = (e) => {
      const area = this.layer.getBoundingClientRect()
      const limit = (share) => Math.min(Math.max(share, 0), 1)
      return [
        limit((e.clientX - area.left) / area.width) * this.width,
        limit((e.clientY - area.top) / area.height) * this.height,
      ]
    }
    const from = at(event)
    const box = node
      ? this.list[[...this.layer.children].indexOf(node)]
      : { label: this.current, x0: from[0], y0: from[1], x1: from[0], y1: from[1] }
    const before = { ...box }
    if (node) node.focus({ preventScroll: true })
    else {
      this.list.push(box)
      this.selected = box
      this.draw()
    }
    let changed = !node
    const drag = (e) => {
      const [x, y] = at(e)
      const [dx, dy] = [x - from[0], y - from[1]]
      if (!changed && Math.hypot(dx, dy) < LEAST) return
      changed = true
      Object.assign(box, before)
      if (!node) {
        Object.assign(box, { x0: Math.min(from[0], x), x1: Math.max(from[0], x), y0: Math.min(from[1], y), y1: Math.max(from[1], y) })
      } else if (corner) this.#resize(box, corner, dx, dy)
      else this.#move(box, dx, dy)
      this.#place(this.#nodeOf(box), box)
    }
    const end = () => {
      this.layer.removeEventListener("pointermove", drag)
      this.layer.removeEventListener("pointerup", end)
      this.layer.removeEventListener("pointercancel", end)
      if (!changed) return
      if (box.x1 - box.x0 < LEAST || box.y1 - box.y0 < LEAST) {
        this.list.splice(this.list.indexOf(box), 1)
        this.selected = null
        this.draw()
        this.changed()
      } else this.#own(box)
    }
    this.layer.setPointerCapture(event.pointerId)
    this.layer.addEventListener("pointermove", drag)
    this.layer.addEventListener("pointerup", end)
    this.layer.addEventListener("pointercancel", end)
  }
}
