"use strict";
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const body = document.body;
body.classList.add("scripted");

// the details beside the grid: the cell that opened them stays where it is on the screen
let opener = null;
let height = null;
function keep(change) {
  const before = opener && opener.getBoundingClientRect().top;
  change();
  if (opener) scrollBy(0, opener.getBoundingClientRect().top - (height === null ? before : height));
  height = null;
}
function show() {
  const article = document.getElementById(location.hash.slice(1) || "close");
  const open = Boolean(article && article.matches(".panel article"));
  all(".cell[aria-current]").forEach(cell => cell.removeAttribute("aria-current"));
  body.classList.toggle("with-panel", open);
  if (!open) return;
  opener = all(".cell").find(cell => cell.hash === location.hash);
  opener.setAttribute("aria-current", "true");
  if (height === null) opener.scrollIntoView({ block: "center" });
  else keep(() => {});
  article.scrollTop = 0;
  article.focus({ preventScroll: true });
}
function hide() {
  keep(() => {
    location.replace("#close"); // which nothing is called: the page does not scroll
    show();
  });
  if (opener) opener.focus({ preventScroll: true });
}
addEventListener("hashchange", show);
document.addEventListener("click", event => {
  if (event.target.closest(".close")) { event.preventDefault(); hide(); }
  const cell = event.target.closest(".cell");
  if (cell) height = cell.getBoundingClientRect().top;
});

// Escape closes; the arrows go from cell to cell
const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
document.addEventListener("keydown", event => {
  if (event.key === "Escape" && body.classList.contains("with-panel")) hide();
  const cell = document.activeElement.closest(".cell");
  if (!cell || !steps[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const [down, right] = steps[event.key];
  const rows = all("#grid tbody tr:not(.family)").filter(row => row.offsetParent);
  const place = cell.parentElement.cellIndex;
  let row = rows.indexOf(cell.closest("tr")), column = place;
  for (;;) {
    row += down; column += right;
    const next = rows[row] && rows[row].cells[column];
    if (!next) return;
    if (next.querySelector(".cell")) { next.firstElementChild.focus(); return; }
  }
});

// filters by state and by words
const chips = all(".chip");
const words = document.querySelector("[data-find='#grid']");
const pressed = chip => chip.getAttribute("aria-pressed") === "true";
function filter() {
  const states = chips.filter(pressed).map(chip => chip.dataset.state);
  const wanted = words.value.trim().toLowerCase();
  const grid = document.getElementById("grid");
  grid.classList.toggle("filtered", states.length > 0);
  let any = false;
  for (const group of grid.tBodies) {
    let shown = false;
    for (const row of all("tr[data-words]", group)) {
      let chosen = false;
      for (const cell of all(".cell", row)) {
        const fits = states.some(state => cell.classList.contains(state));
        cell.classList.toggle("chosen", fits);
        chosen = chosen || fits;
      }
      const stays = (chosen || !states.length) && row.dataset.words.toLowerCase().includes(wanted);
      row.classList.toggle("away", !stays);
      shown = shown || stays;
    }
    group.classList.toggle("away", !shown);
    any = any || shown;
  }
  document.querySelector(".nothing").hidden = any;
}
chips.forEach(chip => chip.addEventListener("click", () => {
  chip.setAttribute("aria-pressed", String(!pressed(chip)));
  filter();
}));
words.addEventListener("input", filter);

// long lists: the first lines, and the rest when asked for
for (const list of all("[data-first]")) {
  const lines = () => (list.tBodies ? [...list.tBodies[0].rows] : [...list.children]);
  const find = document.querySelector(`[data-find='#${list.id}']`);
  const more = document.createElement("button");
  let whole = false;
  const update = () => {
    const wanted = find ? find.value.trim().toLowerCase() : "";
    const found = lines().filter(line => !wanted || line.dataset.words.toLowerCase().includes(wanted));
    const kept = new Set(whole || wanted ? found : found.slice(0, Number(list.dataset.first)));
    lines().forEach(line => { line.hidden = !kept.has(line); });
    more.textContent = whole ? "Show fewer" : `Show all ${found.length}`;
    more.hidden = Boolean(wanted) || found.length <= Number(list.dataset.first);
  };
  more.type = "button";
  more.className = "more";
  more.addEventListener("click", () => { whole = !whole; update(); });
  list.closest(".long").append(more);
  if (find) find.addEventListener("input", update);
  if (list.tHead) sortable(list, update);
  update();
}

// tables sort by a column when its head is pressed, and the other way when it is pressed again
function sortable(table, update) {
  const numbers = text => text.split(".").map(part => parseInt(part, 10) || 0);
  const compare = {
    text: (a, b) => a.localeCompare(b),
    version: (a, b) => {
      const [one, two] = [numbers(a), numbers(b)];
      for (let at = 0; at < Math.max(one.length, two.length); at++) {
        if ((one[at] || 0) !== (two[at] || 0)) return (one[at] || 0) - (two[at] || 0);
      }
      return 0;
    },
  };
  all("th[data-sort]", table.tHead).forEach((head, index) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const first = head.dataset.sort === "text" ? "ascending" : "descending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? other : first;
      all("th", table.tHead).forEach(one => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const text = row => row.cells[index].textContent;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => sign * compare[head.dataset.sort](text(a), text(b)));
      table.tBodies[0].append(...rows);
      update();
    });
  });
}

// logs: the clipboard is there only on secure pages
document.addEventListener("click", async event => {
  const button = event.target.closest(".copy");
  if (!button) return;
  const log = button.closest("article").querySelector("pre");
  try {
    await navigator.clipboard.writeText(log.textContent);
  } catch {
    getSelection().selectAllChildren(log);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
show();
