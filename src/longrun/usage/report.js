"use strict";
// what a plot shows of the day under the pointer; all text is set as text
for (const frame of document.querySelectorAll(".frame")) {
  const data = JSON.parse(frame.dataset.plot);
  const cursor = frame.appendChild(document.createElement("div"));
  const tip = frame.appendChild(document.createElement("div"));
  cursor.className = "cursor";
  tip.className = "tip";
  cursor.hidden = tip.hidden = true;
  const last = data.days.length - 1;
  frame.addEventListener("pointermove", event => {
    const box = frame.getBoundingClientRect();
    const at = Math.min(last, Math.max(0, Math.round((event.clientX - box.left) / box.width * last)));
    const place = last ? at / last : 0.5;
    tip.replaceChildren(line("b", data.days[at]));
    for (const [name, style, values] of data.series) {
      const row = line("span", "");
      const label = line("em", name);
      label.style.fontStyle = "normal";
      const mark = document.createElement("i");
      mark.className = style;
      label.prepend(mark);
      row.append(label, line("b", values[at].toLocaleString("en").replaceAll(",", "\u202f")));
      tip.append(row);
    }
    cursor.style.left = tip.style.left = `${place * 100}%`;
    tip.style.transform = `translateX(${place > 0.5 ? "calc(-100% - 10px)" : "10px"})`;
    cursor.hidden = tip.hidden = false;
  });
  frame.addEventListener("pointerleave", () => { cursor.hidden = tip.hidden = true; });
}
function line(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}
