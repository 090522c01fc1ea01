// Everything works without this. It looks again every few seconds, and opens the console by itself.
"use strict";
const EVERY_MS = 3000;

function replaceParts(page, ids) {
  for (const id of ids) {
    const now = document.getElementById(id), next = page.getElementById(id);
    // What a person stands in stays: focus and selection would be lost.
    if (now && next && now.innerHTML !== next.innerHTML && !now.contains(document.activeElement)) {
      now.innerHTML = next.innerHTML;
    }
  }
}

async function look(ids) {
  const answer = await fetch(location.href, { credentials: "same-origin", redirect: "error" });
  if (answer.status === 401) location.reload();
  if (!answer.ok) return;
  replaceParts(new DOMParser().parseFromString(await answer.text(), "text/html"), ids);
}

for (const box of document.querySelectorAll("[data-live-for]")) {
  const ids = box.dataset.liveFor.split(" "), wanted = box.querySelector("input");
  box.hidden = false;
  setInterval(() => {
    if (wanted.checked && !document.hidden) look(ids).catch(() => {});
  }, EVERY_MS);
}

// A person who follows a link has decided already; what only reads links runs no scripts.
for (const form of document.querySelectorAll("form[action$='/login']")) form.requestSubmit();
// Once is enough, however often somebody clicks.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented) return; // a script answers it, and may be asked again
  for (const button of event.target.querySelectorAll("button")) setTimeout(() => { button.disabled = true; });
});
