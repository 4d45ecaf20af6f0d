// The medium with the evidence on it, and, for a video, the time below it.

class Stage {
  constructor({ onSeek }) {
    this.onSeek = onSeek;
    this.position = 0;
    this.timer = 0;
    this.view = null;
    this.element = h("section", { class: "stage", "aria-label": "Medium and evidence" });
    this.observer = new ResizeObserver(() => {
      document.documentElement.style.setProperty("--stage-height", `${this.element.offsetHeight}px`);
      this.draw();
    });
  }

  /** Show a trajectory's medium: `{info, medium, steps}`; the medium is null when the page has none of it. */
  open(view) {
    this.pause();
    this.view = view;
    this.chosen = null;
    this.frames = view.medium.frames;
    this.isVideo = view.info.kind === "video";
    this.position = 0;
    this.observer.disconnect();
    this.picture = this.frames.length ? h("img", { alt: `${view.info.kind === "video" ? "A frame" : "The image"} of ${view.info.name}`, draggable: "false" }) : this.absence();
    this.layer = h("canvas", { "aria-hidden": "true" });
    this.svg = s("svg", { role: "img", "aria-label": "evidence" });
    this.board = h("div", { class: "canvas" }, this.picture, this.layer, this.svg);
    this.board.style.setProperty("--ar", clamp(view.info.width / view.info.height, 1 / 6, 6));
    this.caption = h("span", { "aria-live": "polite" });
    this.hint = h("button", { class: "hint", type: "button", hidden: true, onclick: () => this.goHome() });
    this.element.classList.toggle("is-video", this.isVideo);
    this.element.replaceChildren(this.board, h("div", { class: "under" }, this.caption, this.hint));
    if (this.isVideo) this.element.append(this.timeline());
    this.observer.observe(this.board);
    this.show();
  }

  absence() {
    return h("div", { class: "absent" }, h("strong", {}, "The medium cannot be shown"), h("span", { class: "text" }, legible(this.view.medium.problem) || "no frame of it is on this page"));
  }

  timeline() {
    this.slider = h("input", { type: "range", min: 0, max: Math.max(0, this.frames.length - 1), step: 1, value: 0, "aria-label": "Frame", oninput: () => this.seek(Number(this.slider.value)) });
    this.clock = h("output", {});
    this.head = h("div", { class: "head" });
    this.player = h("button", { class: "tool-button", type: "button", "aria-label": "Play", onclick: () => this.toggle() }, icon("play"));
    const strip = h("div", { class: "strip", "aria-hidden": "true" });
    const thumbs = Math.min(12, this.frames.length);
    for (let i = 0; i < thumbs; i++) strip.append(h("img", { src: this.nearestInTime(((i + 0.5) / thumbs) * this.view.info.duration_s).src, alt: "" }));
    strip.append(this.head);
    const seekHere = (event) => {
      const area = strip.getBoundingClientRect();
      const time = clamp((event.clientX - area.left) / area.width, 0, 1) * this.view.info.duration_s;
      if (this.frames.length) this.seek(this.frames.indexOf(this.nearestInTime(time)));
    };
    strip.addEventListener("pointerdown", (event) => { strip.setPointerCapture(event.pointerId); seekHere(event); });
    strip.addEventListener("pointermove", (event) => { if (event.buttons) seekHere(event); });
    this.lanes = h("div", { class: "lanes", "aria-hidden": "true" });
    const button = (name, label, by) => h("button", { class: "tool-button", type: "button", "aria-label": label, onclick: () => this.seek(this.position + by) }, icon(name));
    const controls = h("div", { class: "controls" }, this.player, button("back", "Previous frame", -1), button("forth", "Next frame", 1), this.slider, this.clock);
    return h("div", { class: "time" }, strip, this.lanes, controls);
  }

  nearestInTime(time_s) {
    return this.frames.reduce((best, f) => (Math.abs(f.time_s - time_s) < Math.abs(best.time_s - time_s) ? f : best));
  }

  /** Which steps to draw, by index; `home` moves a video to where the step's evidence is. */
  select(chosen, { home = true } = {}) {
    this.chosen = chosen;
    if (home && chosen.length === 1) this.goHome();
    else this.draw();
  }

  goHome() {
    const frame = homeFrame(this.view.steps[this.chosen[0]], this.frames);
    if (frame === null || !this.isVideo || !this.frames.length) return this.draw();
    this.seekFrame(frame);
  }

  seek(position) {
    if (!this.frames.length) return;
    this.position = clamp(position, 0, this.frames.length - 1);
    this.show();
    this.onSeek();
  }

  toggle() {
    if (this.timer) this.pause();
    else if (this.isVideo && this.frames.length > 1) this.play();
  }

  play() {
    const next = () => {
      this.seek((this.position + 1) % this.frames.length);
      schedule();
    };
    const schedule = () => {
      const after = this.frames[this.position + 1];
      const gap_s = after ? after.time_s - this.frames[this.position].time_s : 0.6;
      this.timer = setTimeout(next, clamp(gap_s, 0.03, 1.5) * 1000);
    };
    schedule();
    this.player.setAttribute("aria-label", "Pause");
    this.player.replaceChildren(icon("pause"));
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (this.player) {
      this.player.setAttribute("aria-label", "Play");
      this.player.replaceChildren(icon("play"));
    }
  }

  show() {
    const frame = this.frames[this.position];
    if (frame) this.picture.src = frame.src;
    if (this.isVideo) this.showTime(frame);
    this.draw();
  }

  showTime(frame) {
    const { duration_s, num_frames } = this.view.info;
    this.slider.disabled = this.frames.length < 2;
    if (!frame) return;
    this.slider.value = this.position;
    this.slider.setAttribute("aria-valuetext", `${seconds(frame.time_s)}, frame ${frame.frame}`);
    this.clock.textContent = `${seconds(frame.time_s)} / ${seconds(duration_s)}`;
    this.clock.title = `frame ${frame.frame} of ${num_frames}; ${this.frames.length} frames are on this page`;
    this.head.style.left = `${clamp(frame.time_s / Math.max(duration_s, 1e-9), 0, 1) * 100}%`;
  }

  draw() {
    const area = this.board ? this.board.getBoundingClientRect() : { width: 0 };
    if (!area.width || !this.chosen) return;
    const { info, steps } = this.view;
    const frame = this.frames[this.position];
    const sheet = new Sheet(this.svg, this.layer, {
      width: area.width, height: area.height, medium: info, isVideo: this.isVideo && frame, frame: frame ? frame.frame : -1,
    });
    this.sheet = sheet;
    sheet.time_s = frame ? frame.time_s : -1;
    sheet.isOverview = this.chosen.length !== 1;
    this.picture.classList.toggle("is-pixelated", Boolean(frame) && area.width > 3 * info.width);
    for (const index of this.chosen) {
      const step = steps[index];
      const colour = COLOURS[step.op] ?? "#ffffff";
      drawAsked(sheet, step, colour);
      if (step.found) DRAW[step.found.op](sheet, step.found, colour, sheet.isOverview ? `${index + 1} ${step.op}` : step.op);
    }
    this.describe(sheet, frame);
    if (this.isVideo) this.drawLanes();
  }

  /** Point at one box of what is drawn; null takes the pointer away. */
  point(box) {
    this.svg.querySelector(".pointer")?.remove();
    if (!box || !this.sheet) return;
    this.sheet.box(box, "#ffffff", { width: 3, kind: "pointer" }).classList.add("pointer");
  }

  /** Go to the frame on this page that is nearest to one of the video's. */
  seekFrame(frame) {
    if (!this.frames.length) return;
    const near = this.frames.reduce((best, f) => (Math.abs(f.frame - frame) < Math.abs(best.frame - frame) ? f : best));
    this.seek(this.frames.indexOf(near));
  }

  describe(sheet, frame) {
    const { info, steps } = this.view;
    const what = this.isVideo && frame ? `Frame ${frame.frame} of ${info.num_frames}` : info.name;
    this.caption.textContent = legible(`${what} · ${info.width} × ${info.height} px${sheet.problem ? ` · ${sheet.problem}` : ""}`);
    const home = this.chosen.length === 1 ? homeFrame(steps[this.chosen[0]], this.frames) : null;
    const isAway = this.isVideo && frame && home !== null && steps[this.chosen[0]].op !== "TRK" && steps[this.chosen[0]].op !== "TEMP" && home !== frame.frame;
    this.hint.hidden = !isAway;
    if (isAway) this.hint.textContent = `Step ${this.chosen[0] + 1} looks at frame ${home}`;
    const drawn = this.chosen.map((i) => `step ${i + 1} ${steps[i].op}`).join(", ");
    this.svg.setAttribute("aria-label", drawn ? `Evidence of ${drawn}` : "No evidence");
  }

  /** One lane a step: where in time its evidence lies. */
  drawLanes() {
    const { info, steps } = this.view;
    const share = (time_s) => `${clamp(time_s / Math.max(info.duration_s, 1e-9), 0, 1) * 100}%`;
    const bar = (start_s, end_s, weak = false) => {
      const mark = h("i", { class: weak ? "is-weak" : null });
      mark.style.left = share(start_s);
      mark.style.width = `calc(${share(end_s)} - ${share(start_s)})`;
      return mark;
    };
    const dot = (time_s) => {
      const mark = h("i", { class: "is-point" });
      mark.style.left = share(time_s);
      return mark;
    };
    this.lanes.replaceChildren();
    steps.forEach((step, index) => {
      if (!step.found) return;
      const lane = h("div", { class: `lane${this.chosen.includes(index) ? " is-on" : ""}`, title: `step ${index + 1} ${step.op}` });
      lane.style.color = COLOURS[step.op];
      if (step.found.op === "TEMP") step.found.segments.forEach((g, i) => lane.append(bar(g.start_s, g.end_s, i > 0)));
      else if (step.found.op === "TRK") for (const [from, to] of visibleRuns(step.found.points)) lane.append(bar(from, to));
      else lane.append(dot(step.found.time_s));
      this.lanes.append(lane);
    });
  }
}

/** `[start_s, end_s]` of each stretch in which a track is visible. */
function visibleRuns(points) {
  const runs = [];
  let open = null;
  for (const point of points) {
    if (!point.box) open = null;
    else if (open) open[1] = point.time_s;
    else runs.push((open = [point.time_s, point.time_s]));
  }
  return runs;
}
