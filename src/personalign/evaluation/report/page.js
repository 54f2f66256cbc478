"use strict";
(function () {
  const themes = ["auto", "light", "dark"];
  const themeButton = document.getElementById("theme");
  let theme = "auto";
  try { theme = localStorage.getItem("personalign-theme") || "auto"; } catch (_) { /* a file may have no storage */ }
  function showTheme() {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", theme);
    themeButton.textContent = "Theme: " + theme;
  }
  themeButton.addEventListener("click", function () {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem("personalign-theme", theme); } catch (_) { /* as above */ }
    showTheme();
  });
  showTheme();

  const source = document.getElementById("data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const ROW = 52, AHEAD = 8;
  const DIALOGUE = 0, TURN = 1, RELEVANT = 2, REPLIES = 3, SELECTED = 4, VERDICTS = 5, APART = 6;
  const list = document.getElementById("list"), detail = document.getElementById("case");
  const search = document.getElementById("search"), sort = document.getElementById("sort");
  const filter = document.getElementById("filter"), count = document.getElementById("count");
  const announced = document.getElementById("announced");
  const spacer = document.createElement("div");
  spacer.setAttribute("role", "presentation");
  list.appendChild(spacer);

  const goldOf = (c) => data.dialogues[c[DIALOGUE]].messages[c[TURN]][1];
  const titleOf = (c) => data.dialogues[c[DIALOGUE]].id + ", message " + c[TURN];
  const contradictions = data.cases.map((c) => c[VERDICTS].filter((text, i) => i !== data.reference && text.includes("c")).length);
  // Every text once: a case is found by what was said up to its turn, which its dialogue's other cases share.
  const joined = (texts) => texts.join("\n").toLowerCase();
  const heads = data.dialogues.map((d) => joined([d.id, ...d.persona]));
  const said = data.dialogues.map((d) => d.messages.map((m) => m[1].toLowerCase()));
  const replies = data.cases.map((c) => joined(c[REPLIES]));
  const tests = {
    all: () => true,
    line: (c) => c[RELEVANT] !== null && c[RELEVANT].length > 0,
    none: (c) => c[RELEVANT] !== null && c[RELEVANT].length === 0,
    contradicted: (c, i) => contradictions[i] > 0,
    lines: (c) => new Set(c[SELECTED].filter((line) => line !== -1)).size > 1,
  };
  const orders = {
    given: (a, b) => a - b,
    apart: (a, b) => data.cases[b][APART] - data.cases[a][APART] || a - b,
    contradicted: (a, b) => contradictions[b] - contradictions[a] || a - b,
  };
  let shown = [], current = 0;

  /* From which turn on the cases of each dialogue have the word before them: 0 where its persona has it. */
  function turnsWith(word) {
    return heads.map(function (head, d) {
      if (head.includes(word)) return 0;
      const first = said[d].findIndex((text) => text.includes(word));
      return first === -1 ? Infinity : first;
    });
  }

  function refresh() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), test = tests[filter.value];
    const turns = words.map(turnsWith);
    const found = (c, i) => words.every((word, w) => turns[w][c[DIALOGUE]] <= c[TURN] || replies[i].includes(word));
    shown = [];
    for (let i = 0; i < data.cases.length; i++) {
      if (test(data.cases[i], i) && found(data.cases[i], i)) shown.push(i);
    }
    shown.sort(orders[sort.value]);
    count.textContent = shown.length.toLocaleString("en") + " of " + data.cases.length.toLocaleString("en") + " turns";
    current = 0;
    list.scrollTop = 0;
    spacer.style.height = shown.length * ROW + "px";
    draw();
    open();
  }

  function draw() {
    for (const row of list.querySelectorAll(".row")) row.remove();
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - AHEAD);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + AHEAD);
    // The active row is there even when it is scrolled out of sight: screen readers look it up.
    if (shown.length && current < first) list.append(rowOf(current));
    for (let place = first; place < last; place++) list.append(rowOf(place));
    if (shown.length && current >= last) list.append(rowOf(current));
    if (shown.length) list.setAttribute("aria-activedescendant", "case-" + current);
    else list.removeAttribute("aria-activedescendant");
  }

  function rowOf(place) {
    const c = data.cases[shown[place]], row = document.createElement("div");
    row.className = "row";
    row.id = "case-" + place;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(place === current));
    row.setAttribute("aria-setsize", String(shown.length));
    row.setAttribute("aria-posinset", String(place + 1));
    row.style.top = place * ROW + "px";
    const head = document.createElement("div");
    head.className = "soft";
    head.append(text("span", titleOf(c)));
    if (data.compared) head.append(text("span", "apart " + c[APART]));
    row.append(head, text("div", goldOf(c)));
    row.addEventListener("click", function () { choose(place); });
    return row;
  }

  function choose(place) {
    current = Math.max(0, Math.min(shown.length - 1, place));
    const top = current * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    draw();
    open();
  }

  function text(tag, content, style) {
    const element = document.createElement(tag);
    element.textContent = content;
    if (style) element.className = style;
    return element;
  }

  function labelled(name, content) {
    const cell = text("td", content);
    cell.dataset.label = name;
    return cell;
  }

  const MEANING = { e: "entailed", n: "left open", c: "contradicted" };
  const MARK = { e: "+", n: "·", c: "−" };

  function open() {
    detail.replaceChildren();
    announced.textContent = shown.length ? titleOf(data.cases[shown[current]]) : "";
    if (!shown.length) { detail.append(text("p", "No turn fits.", "soft")); return; }
    const c = data.cases[shown[current]], d = data.dialogues[c[DIALOGUE]];
    const title = text("h3", titleOf(c));
    title.tabIndex = -1;
    detail.append(title);
    const lines = document.createElement("ol");
    lines.className = "lines";
    lines.start = 0;
    d.persona.forEach(function (line, i) {
      const labelled = c[RELEVANT] !== null && c[RELEVANT].includes(i);
      lines.append(text("li", line + (labelled ? "  ← what the gold reply expresses" : ""), labelled ? "labelled" : ""));
    });
    detail.append(d.persona.length ? lines : text("p", "no persona", "soft"));
    const said = document.createElement("ul");
    said.className = "said";
    for (const [role, content] of d.messages.slice(0, c[TURN])) said.append(text("li", content, role));
    said.append(text("li", "gold: " + goldOf(c), "assistant labelled"));
    detail.append(said);
    const table = document.createElement("table");
    table.className = "replies";
    const head = table.createTHead().insertRow();
    const judged = data.judged, selects = c[SELECTED].some((line) => line !== -1);
    for (const name of ["system", "reply", ...(selects ? ["line selected"] : []), ...(judged ? ["judge, by line"] : [])]) {
      const cell = text("th", name);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    data.systems.forEach(function (name, i) {
      const row = body.insertRow(), header = text("th", name);
      header.scope = "row";
      row.append(header);
      if (i === data.reference) row.className = "reference";
      const selected = c[SELECTED][i];
      row.append(labelled("reply", c[REPLIES][i] || "(empty)"));
      if (selects) row.append(labelled("line selected", selected === -1 ? "" : selected === null ? "none" : String(selected)));
      if (judged) {
        const cell = labelled("judge, by line", "");
        [...c[VERDICTS][i]].forEach(function (letter, line) {
          const mark = text("span", line + MARK[letter], "verdict " + letter);
          mark.title = "line " + line + " is " + MEANING[letter];
          mark.append(text("span", " " + MEANING[letter], "hidden"));
          cell.append(mark);
        });
        row.append(cell);
      }
    });
    detail.append(table);
  }

  let waiting = 0;
  search.addEventListener("input", function () { clearTimeout(waiting); waiting = setTimeout(refresh, 120); });
  sort.addEventListener("change", refresh);
  filter.addEventListener("change", refresh);
  list.addEventListener("scroll", function () { requestAnimationFrame(draw); });
  window.addEventListener("resize", draw);
  list.addEventListener("keydown", function (event) {
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -shown.length, End: shown.length };
    if (event.key in moves && shown.length) {
      event.preventDefault();
      choose(current + moves[event.key]);
    } else if (event.key === "Enter") {
      const title = detail.querySelector("h3");
      if (title) title.focus();
    }
  });
  refresh();
})();
