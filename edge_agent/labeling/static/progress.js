// How many labels there are, and what they say of the model.

import { element, percent } from "./keys.js"

const SVG = "http://www.w3.org/2000/svg"
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [330, 110, 44, 8, 8, 20]
const $ = (id) => document.getElementById(id)

export function showProgress(state) {
  const { progress, ranking, problems } = state
  const { frames, unsure, skipped, boxes } = progress
  const parts = [`${frames} labelled${boxes ? ` (${boxes} boxes)` : ""}`]
  if (unsure) parts.push(`${unsure} not sure`)
  if (skipped) parts.push(`${skipped} skipped`)
  $("counts").textContent = frames + unsure + skipped ? parts.join(", ") : "No label yet."
  $("by-class").replaceChildren(
    ...Object.entries(progress.labels).map(([name, count]) =>
      element("li", { textContent: `${name || "nothing"} ${count}` }),
    ),
  )
  $("words").textContent = progress.words
  $("curve").hidden = progress.curve.length < 2
  if (!$("curve").hidden) $("plot").replaceChildren(plot(progress.curve))
  $("problems").replaceChildren(
    ...problems.map((text) => element("li", { textContent: text })),
  )
  $("ranking").textContent = rankingWords(ranking)
}

export function rankingWords({ listed, frames, chosen, looked_at, waiting }) {
  if (!listed) return `Reading what is there: ${frames} frames so far.`
  const left = `${waiting} of ${frames} frames without a label wait`
  return looked_at < chosen ? `${left}; the model has seen ${looked_at} of ${chosen}` : left
}

function plot(points) {
  const most = points.at(-1)[0]
  const x = (count) => LEFT + ((WIDTH - LEFT - RIGHT) * count) / most
  const y = (share) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - share)
  const svg = made("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" })
  const [count, share] = points.at(-1)
  svg.setAttribute("aria-label", `Agreement after ${count} labels: ${percent(share)}`)
  for (const level of [0, 0.5, 1]) {
    svg.append(made("line", { class: "rule", x1: LEFT, x2: WIDTH - RIGHT, y1: y(level), y2: y(level) }))
    svg.append(text(LEFT - 6, y(level) + 4, percent(level), "end"))
  }
  const line = points.map(([n, s]) => `${x(n).toFixed(1)},${y(s).toFixed(1)}`).join(" ")
  svg.append(made("polyline", { class: "line", points: line }))
  svg.append(made("circle", { class: "dot", cx: x(count), cy: y(share), r: 3 }))
  svg.append(text(LEFT, HEIGHT - 4, "0", "start"), text(WIDTH - RIGHT, HEIGHT - 4, `${most} labels`, "end"))
  return svg
}

function made(name, attributes) {
  const one = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value)
  return one
}

function text(x, y, words, anchor) {
  const one = made("text", { x, y, "text-anchor": anchor })
  one.textContent = words
  return one
}
