// Sends what is asked, as it is, and shows the server's answer. Pictures are drawn on canvas.
"use strict";
const { path, token, most } = document.getElementById("compare").dataset;
const said = document.getElementById("said");
const LONGEST = 640, MB = 1 << 20;
let asked = 0;

function say(words, bad = false) {
  said.textContent = words;
  said.classList.toggle("bad", bad);
}

function refuse(text) {
  let words = "Something has failed on the server; its log says what";
  try { words = JSON.parse(text).detail; } catch { /* no answer of the page's own */ }
  say(words, true);
}

function show(text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  for (const id of ["answer", "board"]) {
    document.getElementById(id).replaceChildren(...page.getElementById(id).childNodes);
  }
  say(page.getElementById("verdict").textContent);
}

function send(what, body) {
  return fetch(path + what, {
    method: "POST", body, credentials: "same-origin", redirect: "error",
    headers: { "content-type": "application/octet-stream", "x-form-token": token },
  });
}

async function post(what, body) {
  const number = ++asked;
  const answer = await send(what, body);
  const text = await answer.text();
  if (answer.status === 401) location.reload();
  if (number !== asked) return false;
  if (answer.ok) show(text);
  else refuse(text);
  return answer.ok;
}

async function ask(body, size) {
  if (size > Number(most)) {
    say(`This has ${Math.ceil(size / MB)} MB, at most ${Math.floor(most / MB)} MB are taken; choose a smaller one`, true);
    return false;
  }
  say("Asking the models …");
  const truth = document.getElementById("truth");
  try {
    return await post(`/ask?truth=${encodeURIComponent(truth ? truth.value : "")}`, body);
  } catch {
    say("The server does not answer; is it still running?", true);
    return false;
  }
}

function draw(canvas, picture) {
  const share = Math.min(1, LONGEST / Math.max(picture.width, picture.height));
  canvas.width = Math.max(1, Math.round(picture.width * share));
  canvas.height = Math.max(1, Math.round(picture.height * share));
  const scale = canvas.width / Number(canvas.dataset.width);
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  pen.font = "600 14px system-ui, sans-serif";
  for (const { label, score, box } of JSON.parse(canvas.dataset.boxes)) {
    const [x0, y0, x1, y1] = box.map((side) => side * scale);
    const words = `${label} ${Math.round(100 * score)} %`;
    const top = Math.max(18, y0);
    pen.lineWidth = 4; pen.strokeStyle = "#000"; pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    pen.lineWidth = 2; pen.strokeStyle = "#3fc9ba"; pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    pen.fillStyle = "#06211e"; pen.fillRect(x0, top - 18, pen.measureText(words).width + 8, 18);
    pen.fillStyle = "#fff"; pen.fillText(words, x0 + 4, top - 4);
  }
  canvas.parentElement.hidden = false;
}

async function drawAll(source) {
  // Only now: the server has looked at its size. A browser that cannot read it shows none.
  const picture = await createImageBitmap(source).catch(() => null);
  if (picture) for (const canvas of document.querySelectorAll("#answer canvas")) draw(canvas, picture);
}

async function askPicture(file) {
  if (file && (await ask(file, file.size))) await drawAll(file);
}

const drop = document.getElementById("drop"), file = document.getElementById("file");
if (drop) {
  file.addEventListener("change", async () => { await askPicture(file.files[0]); file.value = ""; });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind.startsWith("drage") || kind === "dragover");
      if (kind === "drop") askPicture(event.dataTransfer.files[0]);
    });
  }
  // A picture that misses the place must not replace the page.
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
} else {
  document.getElementById("words").addEventListener("submit", (event) => {
    event.preventDefault();
    const body = new Blob([document.getElementById("text").value]);
    ask(body, body.size);
  });
}
// A data set is asked about on the server; the page looks at how far it is.
const batch = document.getElementById("batch"), begin = document.getElementById("begin");
const EVERY = 700;

function showBatch(text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  batch.replaceChildren(...page.body.childNodes);
  document.getElementById("stop").hidden = !batch.querySelector("[data-state=running]");
  const verdict = batch.querySelector(".verdict");
  if (verdict) say(verdict.textContent);
}

async function look() {
  if (!batch.querySelector("[data-state=running]")) return;
  const answer = await fetch(`${path}/batch`, { credentials: "same-origin", redirect: "error" });
  if (answer.ok) showBatch(await answer.text());
  setTimeout(() => look().catch(() => {}), EVERY);
}

async function order(what) {
  const answer = await send(what, "");
  const text = await answer.text();
  if (answer.status === 401) location.reload();
  if (answer.ok) showBatch(text);
  else refuse(text);
  await look();
}

if (begin) {
  begin.addEventListener("submit", (event) => {
    event.preventDefault();
    order(`/begin?data=${encodeURIComponent(document.getElementById("data").value)}`).catch(() => {});
  });
  document.getElementById("stop").addEventListener("click", () => order("/stop").catch(() => {}));
  look().catch(() => {});
}
batch.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-again]");
  if (!button || !(await post(`/again/${button.dataset.again}`, ""))) return;
  said.scrollIntoView({ block: "start" });
  const image = await fetch(`${path}/input/${button.dataset.again}?large=true`, { credentials: "same-origin" });
  if (image.ok) await drawAll(await image.blob());
});
document.getElementById("clear").addEventListener("click", () => post("/clear", "").catch(() => {}));
if (location.search) history.replaceState(null, "", location.pathname);
