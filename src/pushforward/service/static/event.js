"use strict";
// Feedback on one event. All texts enter the page as text, never as markup.
const main = document.getElementById("main");
const said = document.getElementById("said");
for (const button of document.querySelectorAll("button[data-label]")) {
  button.addEventListener("click", async () => {
    const note = document.getElementById("note");
    const body = { id: main.dataset.event, label: button.dataset.label };
    if (note.value.trim()) body.note = note.value.trim();
    try {
      const answer = await fetch("/feedback", {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
      });
      if (!answer.ok) throw new Error((await answer.json()).error);
      const item = document.createElement("li");
      item.textContent = body.note ? `${body.label}: ${body.note}` : body.label;
      document.getElementById("feedback").append(item);
      said.textContent = `Stored: ${body.label}.`;
      note.value = "";
    } catch (error) {
      said.textContent = `Not stored: ${error.message}`;
    }
  });
}
