// The page: the list of trajectories, the one that is open, its steps, and the keyboard.

const STOPS = {
  answered: ["answered", "good"], step_limit: ["step limit", "warn"], token_limit: ["token limit", "warn"], time_limit: ["time limit", "warn"],
  no_action: ["no action", "warn"], loop: ["loop", "warn"], policy_error: ["policy error", "bad"], interrupted: ["interrupted", "warn"],
};
const KEYS = [
  [["←", "→"], "step before, step after (also k, j)"], [["↑", "↓"], "trajectory before, after"], [["1", "–", "9"], "that step"], [["0"], "all evidence at once"],
  [["Space"], "play or stop the video"], [[",", "."], "frame before, after"], [["e"], "open or close all steps"], [["/"], "search"], [["t"], "light or dark"], [["?"], "this list"], [["Esc"], "close"],
];

const index = data("index");
const state = { at: -1, step: 0, isAllOpen: false, shown: [] };
const stage = new Stage({ onSeek: () => remember() });
const parts = {};

function chip(name, value, kind = "") {
  return h("span", { class: `chip ${kind}` }, name, value === null ? null : h("b", {}, value));
}

function stopChip(stop) {
  const [text, kind] = STOPS[stop] ?? [stop, ""];
  return h("span", { class: `chip stop ${kind}` }, text);
}

// ---------------------------------------------------------------- the frame of the page

function build() {
  const isSingle = index.trajectories.length < 2;
  parts.search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search questions, answers and ops", oninput: () => fillList() });
  parts.count = h("p", { class: "count", "aria-live": "polite" });
  parts.items = h("div", { class: "items" });
  parts.menu = h("button", { class: "tool-button only-narrow", type: "button", "aria-label": "Trajectories", hidden: isSingle, onclick: () => toggleList() }, icon("menu"));
  parts.view = h("main", { class: "view", id: "view", tabindex: -1 });
  parts.steps = h("section", { class: "steps", "aria-label": "Steps" });
  parts.body = h("div", { class: `body${isSingle ? " is-single" : ""}` },
    isSingle ? null : h("nav", { class: "list", "aria-label": "Trajectories" }, h("div", { class: "search" }, parts.search), parts.count, parts.items),
    parts.view, parts.steps, h("button", { class: "shade", type: "button", "aria-label": "Close the list", onclick: () => toggleList(false) }));
  const bar = h("header", { class: "bar" }, h("a", { class: "skip", href: "#view", onclick: (e) => { e.preventDefault(); document.querySelector("h1").focus(); } }, "To the trajectory"),
    parts.menu, h("span", { class: "brand" }, icon("logo"), "Pixelis"), h("span", { class: "run-name", title: index.run.name }, index.run.name), h("span", { class: "spring" }),
    h("button", { class: "tool-button", type: "button", "aria-label": "Light or dark", title: "Light or dark (t)", onclick: flipTheme }, icon("theme")),
    h("button", { class: "tool-button", type: "button", "aria-label": "Keys", title: "Keys (?)", onclick: () => parts.help.showModal() }, "?"));
  parts.help = helpDialog();
  document.getElementById("app").replaceChildren(bar, parts.body);
  document.body.append(parts.help);
}

function helpDialog() {
  const dialog = h("dialog", { "aria-labelledby": "keys" });
  const rows = KEYS.flatMap(([keys, text]) => [h("dt", {}, keys.map((k) => (k === "–" ? "–" : h("kbd", {}, k)))), h("dd", {}, text)]);
  dialog.append(h("button", { class: "small-button", type: "button", onclick: () => dialog.close() }, "Close"), h("h2", { id: "keys" }, "Keys"), h("dl", {}, rows));
  return dialog;
}

function toggleList(open = !parts.body.classList.contains("has-list")) {
  parts.body.classList.toggle("has-list", open);
  if (open) parts.search.focus();
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
}

function flipTheme() {
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  state.hasChosenTheme = true;
}

// ---------------------------------------------------------------- the list

function fillList() {
  const words = parts.search.value.toLowerCase().split(/\s+/).filter(Boolean);
  state.shown = index.trajectories.map((_, i) => i).filter((i) => words.every((w) => index.trajectories[i].search.includes(w)));
  const total = index.trajectories.length;
  const more = index.run.has_more ? " (the run has more)" : "";
  parts.count.textContent = words.length ? `${state.shown.length} of ${total}${more}` : `${total} ${total === 1 ? "trajectory" : "trajectories"}${more}`;
  parts.items.replaceChildren(...state.shown.map(listItem));
  markItem();
}

function listItem(i) {
  const item = index.trajectories[i];
  const dots = item.ops.map(({ op, is_ok }) => {
    const dot = h("span", { class: `dot${is_ok ? "" : " is-bad"}`, title: op || "no call" });
    dot.style.color = OP_VARIABLE(op);
    return dot;
  });
  return h("button", { class: "item", type: "button", "data-index": i, onclick: () => { open(i); toggleList(false); } },
    h("span", { class: "q text" }, exact(item.question)), h("span", { class: "a" }, exact(item.answer ?? "no answer")), h("span", { class: "dots" }, dots, stopChip(item.stop)));
}

const OP_VARIABLE = (op) => (op in COLOURS ? `var(--${op.toLowerCase()})` : "var(--soft)");

function markItem() {
  for (const item of parts.items.children) {
    const isOn = Number(item.dataset.index) === state.at;
    item.setAttribute("aria-current", isOn);
    if (isOn) item.scrollIntoView({ block: "nearest" });
  }
}

// ---------------------------------------------------------------- one trajectory

function open(i, step = 0) {
  if (!index.trajectories[i]) return;
  state.at = i;
  const t = (state.trajectory = data(`t-${i}`));
  state.medium = data(`m-${t.info.sha256}`) ?? { frames: [], problem: "nothing of it is on this page" };
  const time = t.total_s === null ? null : chip("took", seconds(t.total_s));
  const head = h("header", {}, index.run.notice ? h("p", { class: "gone text" }, index.run.notice) : null,
    h("h1", { class: "question text", dir: "auto", tabindex: -1 }, exact(t.question)),
    h("div", { class: "answer-line" }, h("span", { class: "label" }, "Answer"),
      t.answer === null ? h("span", { class: "value none" }, "none") : h("span", { class: "value text", dir: "auto" }, exact(t.answer))),
    h("div", { class: "facts" }, stopChip(t.stop), chip("policy", `${t.policy.name} ${t.policy.version}`), chip("seed", t.seed), time, chip("steps", t.steps.length)),
    t.stop_detail ? h("p", { class: "gone text" }, exact(t.stop_detail)) : null);
  parts.view.replaceChildren(head, stage.element, factsTable(t));
  parts.view.scrollTop = 0;
  stage.open({ info: t.info, medium: state.medium, steps: t.steps });
  fillSteps(t);
  selectStep(clamp(step, 0, t.steps.length), { isFirst: true });
  if (parts.items.children.length) markItem();
}

function factsTable(t) {
  const rows = [["trajectory", t.id], ["task", t.task_id], ["medium", `${t.info.name} · ${t.info.kind} · SHA-256 ${t.info.sha256}`],
    ...t.engines.map(([op, engine]) => [`${op} engine`, engine]), ["sampling", t.sampling], ["tool settings", t.settings], ["tokens", t.tokens], ["run", index.run.info]];
  const shown = rows.filter(([, value]) => value);
  return h("details", {}, h("summary", {}, "Engines, sampling and identity"),
    h("dl", { class: "table" }, shown.flatMap(([name, value]) => [h("dt", {}, name), h("dd", { class: "text" }, exact(value))])));
}

function fillSteps(t) {
  parts.openAll = h("button", { class: "small-button", type: "button", "aria-pressed": state.isAllOpen, onclick: () => setAllOpen(!state.isAllOpen) }, "Open all");
  parts.all = h("button", { class: "small-button", type: "button", "aria-pressed": false, onclick: () => selectStep(0) }, "All evidence");
  const count = `${t.steps.length} ${t.steps.length === 1 ? "step" : "steps"}`;
  parts.cards = t.steps.map((step, i) => stepCard(step, i));
  parts.steps.replaceChildren(
    h("div", { class: "steps-head" }, h("h2", {}, count), parts.all, parts.openAll), h("ol", {}, parts.cards), finalCard(t));
  parts.steps.scrollTop = 0;
}

function stepCard(step, i) {
  const head = h("button", { class: "step-head", type: "button", "aria-expanded": "false", onclick: () => selectStep(i + 1) },
    h("span", { class: "num" }, i + 1),
    h("span", { class: "line" }, h("span", { class: "op" }, step.op || "no call"), statusChip(step), validChip(step),
      step.timing ? h("span", { class: "took", title: `policy ${seconds(step.timing.policy_s)}, tool ${seconds(step.timing.tool_s)}` }, seconds(step.timing.policy_s + step.timing.tool_s)) : null),
    h("span", { class: "thought text", dir: "auto" }, exact(step.thought || "(no thought)")));
  const more = h("div", { class: "step-more" }, h("div", {}));
  const card = h("li", { class: "step", id: `step-${i + 1}` }, head, more);
  card.style.setProperty("--op", OP_VARIABLE(step.op));
  card.fillOnce = () => {
    if (!card.isFilled) more.replaceChildren(...stepDetails(step, i));
    card.isFilled = true;
  };
  return card;
}

function statusChip(step) {
  if (step.status === "error") return h("span", { class: "chip bad" }, step.error ? step.error.kind : "error");
  if (step.status === "disabled") return h("span", { class: "chip warn" }, "disabled");
  return h("span", { class: "chip good" }, step.timing && step.timing.is_cached ? "ok, cached" : "ok");
}

function validChip(step) {
  if (step.is_valid === undefined) return null;
  if (step.is_valid === null) return h("span", { class: "chip" }, "not checked");
  return h("span", { class: `chip ${step.is_valid ? "good" : "bad"}` }, step.is_valid ? "✓ valid" : "✗ not valid");
}

function stepDetails(step, i) {
  const parts_ = [];
  const part = (title, ...nodes) => parts_.push(h("h3", {}, title), ...nodes);
  if (step.arguments !== null) part("Arguments", h("pre", { class: "text" }, exact(step.arguments)));
  else part("What the policy wrote", h("pre", { class: "text" }, exact(step.text)));
  if (step.found) part("Found", foundList(step, i));
  part("What the policy read", h("pre", { class: `text${step.status === "error" ? " is-bad" : ""}` }, exact(step.response)));
  if (step.arguments !== null) parts_.push(h("details", {}, h("summary", {}, "The policy's exact text"), h("pre", { class: "text" }, exact(step.text))));
  const engine = [step.engine, step.version].filter(Boolean).join(" · ");
  const times = step.timing ? `policy ${seconds(step.timing.policy_s)}, tool ${seconds(step.timing.tool_s)}` : "";
  const facts = [["engine", engine], ["time", times]].filter(([, value]) => value);
  if (facts.length) parts_.push(h("dl", { class: "table" }, facts.flatMap(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])));
  return parts_;
}

function foundList(step, i) {
  const found = step.found;
  const row = (key, value, end) => h("div", {}, h("span", { class: "k" }, key), h("span", { class: "v" }, exact(value)), h("span", { class: "c" }, end ?? ""));
  const jump = (key, value, end, time_s) => h("button", { type: "button", onclick: () => { selectStep(i + 1, { home: false }); stage.seek(stage.frames.indexOf(stage.nearestInTime(time_s))); } },
    h("span", { class: "k" }, key), h("span", { class: "v" }, exact(value)), h("span", { class: "c" }, end));
  const px = (box) => box.map((v) => Math.round(v)).join(", ");
  const canJump = stage.isVideo && stage.frames.length;
  switch (found.op) {
    case "SEG": return h("div", { class: "found" }, row("area", `${number(found.area_share * 100)} % of the frame`), row("box", `${px(found.box)} px`), row("score", number(found.score)));
    case "ZOOM": return crop(found);
    case "TRK": {
      const seen = found.points.filter((p) => p.box);
      const rows = visibleRuns(found.points).slice(0, 50).map(([a, b]) => (canJump ? jump("visible", `${seconds(a)} – ${seconds(b)}`, "", a) : row("visible", `${seconds(a)} – ${seconds(b)}`)));
      return h("div", { class: "found" }, row("track", `#${found.track_id}, on ${seen.length} of ${found.points.length} frames`, number(found.score)), rows);
    }
    case "OCR": return h("div", { class: "found" }, found.spans.length ? found.spans.map((g, k) => pointing(row(k + 1, g.text, number(g.confidence)), g.box, i)) : row("", "no text"));
    case "TEMP": return h("div", { class: "found" }, found.segments.length
      ? found.segments.map((g, k) => (canJump ? jump : row)(k + 1, `${seconds(g.start_s)} – ${seconds(g.end_s)}`, number(g.score), (g.start_s + g.end_s) / 2)) : row("", "no segment"));
    default: return h("div", { class: "found" }, found.attributes.map((a) => row(a.name, attributeText({ ...a, name: "" }).slice(2), number(a.confidence))));
  }
}

/** A row that shows its box on the picture while the mouse is over it. */
function pointing(row, box, i) {
  row.addEventListener("pointerenter", () => { if (state.step === i + 1) stage.point(box); });
  row.addEventListener("pointerleave", () => stage.point(null));
  return row;
}

function crop(found) {
  const blob = data(`b-${found.image}`);
  if (!blob || !blob.src) return h("p", { class: "gone text" }, blob ? blob.problem : "The crop is not on this page.");
  return h("figure", { class: "crop" }, h("img", { src: blob.src, alt: "The crop that the policy looked at" }), h("figcaption", {}, `${found.width} × ${found.height} px as the policy saw it`));
}

function finalCard(t) {
  const card = h("div", { class: "step is-open" },
    h("div", { class: "step-head" }, h("span", { class: "num" }, "A"), h("span", { class: "line" }, h("span", { class: "op" }, "answer"), stopChip(t.stop)),
      h("span", { class: "thought text", dir: "auto" }, exact(t.answer ?? "There is none."))));
  if (t.final_text) card.append(h("div", { class: "step-more" }, h("h3", {}, "The last turn"), h("pre", { class: "text" }, exact(t.final_text))));
  card.style.setProperty("--op", "var(--accent)");
  return card;
}

function setAllOpen(isOpen) {
  state.isAllOpen = isOpen;
  parts.openAll.setAttribute("aria-pressed", isOpen);
  markSteps();
}

function selectStep(step, { isFirst = false, home = true } = {}) {
  const count = state.trajectory.steps.length;
  if (step < 0 || step > count) return;
  state.step = step;
  markSteps();
  stage.select(step ? [step - 1] : state.trajectory.steps.map((_, i) => i), { home });
  const target = step ? parts.cards[step - 1] : parts.steps.firstChild;
  if (!isFirst || step) target.scrollIntoView({ block: "nearest" });
  remember();
}

function markSteps() {
  parts.cards.forEach((card, i) => {
    const isOn = i + 1 === state.step;
    const isOpen = isOn || state.isAllOpen;
    if (isOpen) card.fillOnce();
    card.classList.toggle("is-on", isOn);
    card.classList.toggle("is-open", isOpen);
    card.firstChild.setAttribute("aria-expanded", isOpen);
    if (isOn) card.firstChild.setAttribute("aria-current", "step");
    else card.firstChild.removeAttribute("aria-current");
  });
  parts.all.setAttribute("aria-pressed", state.step === 0);
}

// ---------------------------------------------------------------- address and keyboard

/** The address says what is shown, so that a link leads back to it: #t=0&s=2&f=30. */
function remember() {
  clearTimeout(state.timer);
  state.timer = setTimeout(writeAddress, 250); // browsers refuse an address that changes with every frame
}

function writeAddress() {
  const frame = stage.isVideo && stage.frames[stage.position] ? `&f=${stage.frames[stage.position].frame}` : "";
  history.replaceState(null, "", `#t=${state.at}&s=${state.step}${frame}`);
}

function followAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const whole = (name) => (/^\d{1,6}$/.test(wanted.get(name) ?? "") ? Number(wanted.get(name)) : null);
  if (["light", "dark"].includes(wanted.get("theme"))) setTheme(wanted.get("theme"));
  const frame = whole("f");
  open(clamp(whole("t") ?? 0, 0, index.trajectories.length - 1), whole("s") ?? 0);
  if (frame !== null && stage.isVideo) stage.seekFrame(frame);
}

function moveTrajectory(by) {
  const order = state.shown.length ? state.shown : index.trajectories.map((_, i) => i);
  const at = order.indexOf(state.at);
  const next = order[at < 0 ? 0 : clamp(at + by, 0, order.length - 1)];
  if (next !== state.at) open(next);
}

const ON_KEY = {
  ArrowLeft: () => selectStep(state.step - 1), k: () => selectStep(state.step - 1),
  ArrowRight: () => selectStep(state.step + 1), j: () => selectStep(state.step + 1),
  ArrowUp: () => moveTrajectory(-1), ArrowDown: () => moveTrajectory(1),
  " ": () => stage.toggle(), ",": () => stage.seek(stage.position - 1), ".": () => stage.seek(stage.position + 1),
  e: () => setAllOpen(!state.isAllOpen), t: flipTheme, "?": () => parts.help.showModal(),
  "/": () => { if (!parts.menu.hidden) { toggleList(true); parts.search.focus(); } },
  Escape: () => { toggleList(false); document.activeElement.blur(); },
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || parts.help.open) return;
  const target = event.target;
  const isTyping = target === parts.search || target === stage.slider;
  if (isTyping && event.key !== "Escape" && !(target === stage.slider && !event.key.startsWith("Arrow"))) return;
  if (event.key === " " && target.closest("button:not([aria-current]), summary, a")) return;
  const action = /^[0-9]$/.test(event.key) ? () => selectStep(Number(event.key)) : ON_KEY[event.key];
  if (!action || !state.trajectory) return;
  event.preventDefault();
  action();
}

function start() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => { if (!state.hasChosenTheme) setTheme(dark.matches ? "dark" : "light"); });
  build();
  if (index.trajectories.length > 1) fillList();
  if (index.trajectories.length) followAddress();
  else parts.view.append(h("p", { class: "notice" }, "This run holds no trajectory."));
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", followAddress);
}

start();
