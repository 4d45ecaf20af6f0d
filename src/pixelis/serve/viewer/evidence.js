// What each op found, drawn over the frame: boxes and paths as SVG in screen pixels, masks on a canvas below them.

const COLOURS = { SEG: "#2fd4b6", ZOOM: "#ffc233", TRK: "#d58bff", OCR: "#5fb0ff", TEMP: "#ff8a68", PROP: "#a4e05f" };
const LABEL = { height: 20, pad: 7, gap: 3 };
const ruler = h("canvas").getContext("2d");

/** Draws evidence of one frame; `scale_x` and `scale_y` turn the medium's pixels into the screen's. */
class Sheet {
  constructor(svg, canvas, { width, height, medium, frame, isVideo }) {
    Object.assign(this, { svg, canvas, width, height, frame, isVideo });
    this.scale_x = width / medium.width;
    this.scale_y = height / medium.height;
    this.taken = [];
    this.problem = "";
    this.labels = svg;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    const dpr = window.devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(width * dpr));
    canvas.height = Math.max(1, Math.round(height * dpr));
    this.dpr = dpr;
    ruler.font = "600 12px system-ui, sans-serif";
  }

  rect([x0, y0, x1, y1]) {
    const [left, top] = [x0 * this.scale_x, y0 * this.scale_y];
    return { x: left, y: top, width: Math.max(1, x1 * this.scale_x - left), height: Math.max(1, y1 * this.scale_y - top) };
  }

  /** A shape twice: a dark halo, then the colour, so that it shows on any picture. */
  stroke(tag, attributes, colour, { width = 2.5, dash = null, title = null, opacity = null } = {}) {
    const shape = { ...attributes, fill: "none", "stroke-linejoin": "round", "stroke-linecap": "round" };
    const group = s("g", { opacity }, title === null ? null : s("title", {}, legible(title)));
    group.append(s(tag, { ...shape, stroke: "#0b0d12", "stroke-opacity": 0.6, "stroke-width": width + 2.5, "stroke-dasharray": dash }));
    group.append(s(tag, { ...shape, stroke: colour, "stroke-width": width, "stroke-dasharray": dash }));
    this.svg.append(group);
    return group;
  }

  box(box, colour, options = {}) {
    return this.stroke("rect", { ...this.rect(box), rx: 3, "data-kind": options.kind ?? "box" }, colour, options);
  }

  /** Text in a dark pill beside a box, where nothing else is written; false when there is no such place. */
  label(box, text, colour, { must = true } = {}) {
    const rect = this.rect(box);
    const shown = this.cut(text, Math.min(this.width - 2 * LABEL.pad - 8, 420));
    const width = ruler.measureText(shown).width + 2 * LABEL.pad + 4;
    const left = clamp(rect.x - 1, 0, Math.max(0, this.width - width));
    const places = [
      [left, rect.y - LABEL.height - LABEL.gap],
      [left, rect.y + rect.height + LABEL.gap],
      [rect.x + rect.width + LABEL.gap, rect.y],
      [rect.x - width - LABEL.gap, rect.y],
      [left, rect.y + LABEL.gap],
    ];
    const inside = ([x, y]) => x >= -0.5 && y >= 0 && x + width <= this.width + 0.5 && y + LABEL.height <= this.height;
    const free = ([x, y]) => !this.taken.some((t) => x < t.x + t.width && t.x < x + width && y < t.y + t.height && t.y < y + LABEL.height);
    const place = places.find((p) => inside(p) && free(p)) ?? (must ? places.find(inside) ?? [left, clamp(rect.y, 0, Math.max(0, this.height - LABEL.height))] : null);
    if (!place) return false;
    const [x, y] = place;
    this.taken.push({ x, y, width, height: LABEL.height });
    this.labels.append(
      s("g", { class: "label" },
        s("rect", { x, y, width, height: LABEL.height, rx: 5, fill: "#0d1016", "fill-opacity": 0.88 }),
        s("rect", { x, y: y + 3, width: 3, height: LABEL.height - 6, rx: 1.5, fill: colour }),
        s("text", { x: x + LABEL.pad + 3, y: y + 14.5, fill: "#fff", "font-size": 12, "font-weight": 600, "font-family": "system-ui, sans-serif" }, shown)),
    );
    return true;
  }

  /** A small number at a box's upper left, for a list that says the rest. */
  tag(box, text) {
    const rect = this.rect(box);
    const width = 6 * String(text).length + 6;
    const [x, y] = [clamp(rect.x - width - 1, 0, Math.max(0, this.width - width)), clamp(rect.y, 0, Math.max(0, this.height - 13))];
    this.svg.append(
      s("g", { class: "tag" },
        s("rect", { x, y, width, height: 13, rx: 3, fill: "#0d1016", "fill-opacity": 0.88 }),
        s("text", { x: x + width / 2, y: y + 10, fill: "#fff", "font-size": 10, "text-anchor": "middle", "font-family": "system-ui, sans-serif" }, text)),
    );
  }

  cut(text, room) {
    const flat = legible(text).replace(/\s+/gu, " ");
    let letters = Array.from(flat.slice(0, 200));
    if (flat.length <= 200 && ruler.measureText(flat).width <= room) return flat;
    while (letters.length > 1 && ruler.measureText(letters.join("") + "…").width > room) letters = letters.slice(0, Math.floor(letters.length * 0.9));
    return letters.join("") + "…";
  }

  mask(mask, colour) {
    try {
      const layer = maskCanvas(mask, this.canvas.width, this.canvas.height, colour, Math.max(1, Math.round(2 * this.dpr)));
      this.canvas.getContext("2d").drawImage(layer, 0, 0);
    } catch (error) {
      this.problem = error.message;
    }
  }

  isHere(frame) {
    return !this.isVideo || frame === this.frame;
  }
}

/** What the call asked for, dashed: the tool may have used another region. */
function drawAsked(sheet, step, colour) {
  const asked = step.asked;
  if (!asked || (asked.frame !== null && !sheet.isHere(asked.frame))) return;
  for (const box of [asked.box, asked.other]) if (box) sheet.box(box, colour, { width: 1.25, dash: "5 5", opacity: 0.85, kind: "asked", title: "asked for" });
  if (asked.point) {
    const [x, y] = [asked.point[0] * sheet.scale_x, asked.point[1] * sheet.scale_y];
    sheet.stroke("path", { d: `M${x - 9} ${y}h18M${x} ${y - 9}v18`, "data-kind": "point" }, "#fff", { width: 1.75, title: "the point asked for" });
  }
}

const DRAW = {
  SEG(sheet, found, colour, tag) {
    if (!sheet.isHere(found.frame)) return;
    sheet.mask(found.mask, colour);
    sheet.box(found.box, colour);
    sheet.label(found.box, `${tag} ${number(found.score)}`, colour);
  },
  ZOOM(sheet, found, colour, tag) {
    if (!sheet.isHere(found.frame)) return;
    const { x, y, width, height } = sheet.rect(found.box);
    if (!sheet.isOverview) {
      const dim = `M0 0H${sheet.width}V${sheet.height}H0zM${x} ${y}v${height}h${width}v${-height}z`;
      sheet.svg.append(s("path", { d: dim, fill: "#06080c", "fill-opacity": 0.42, "fill-rule": "evenodd", "data-kind": "dim" }));
    }
    sheet.box(found.box, colour);
    sheet.label(found.box, tag, colour);
  },
  TRK(sheet, found, colour, tag) {
    const centre = ({ box }) => [((box[0] + box[2]) / 2) * sheet.scale_x, ((box[1] + box[3]) / 2) * sheet.scale_y];
    const path = (points) => points.map((p, i) => `${i && points[i - 1].run === p.run ? "L" : "M"}${centre(p).map((v) => v.toFixed(1)).join(" ")}`).join("");
    let run = 0;
    const seen = [];
    for (const point of found.points) {
      if (point.box) seen.push({ ...point, run });
      else run++;
    }
    if (seen.length > 1) {
      sheet.stroke("path", { d: path(seen), "data-kind": "path" }, colour, { width: 1.5, dash: "2 5", opacity: 0.9 });
      const past = seen.filter((p) => p.frame <= sheet.frame);
      if (past.length > 1) sheet.stroke("path", { d: path(past), "data-kind": "past" }, colour, { width: 2.5 });
    }
    const point = nearestPoint(found.points, sheet.frame);
    if (!point || !point.box) return;
    sheet.box(point.box, colour, { dash: point.frame === sheet.frame ? null : "7 5" });
    sheet.label(point.box, `${tag} #${found.track_id} ${number(point.score)}`, colour);
  },
  OCR(sheet, found, colour, tag) {
    if (!sheet.isHere(found.frame)) return;
    if (!sheet.isOverview) sheet.box(found.box, colour, { width: 1.25, dash: "1 5", opacity: 0.8, kind: "region" });
    for (const span of found.spans) sheet.box(span.box, colour, { width: 2, title: span.text, kind: "span" });
    if (sheet.isOverview) sheet.label(found.box, `${tag} ${found.spans.length}`, colour);
    else labelSpans(sheet, found.spans, colour);
  },
  TEMP(sheet, found, colour, tag) {
    const time = sheet.time_s;
    const now = found.segments.find((g) => g.start_s <= time && time <= g.end_s);
    if (found.box) sheet.box(found.box, colour, { dash: now ? null : "6 6" });
    if (now) sheet.label(found.box ?? [0, 0, 0, 0], `${tag} ${found.event} ${number(now.score)}`, colour);
  },
  PROP(sheet, found, colour, tag) {
    if (!sheet.isHere(found.frame)) return;
    sheet.box(found.box, colour);
    if (sheet.isOverview) sheet.label(found.box, tag, colour);
    else for (const a of found.attributes) sheet.label(found.box, attributeText(a), colour, { must: false });
  },
};

/** Each text beside its box; where a page is too full for that, numbers that the list of texts explains. */
function labelSpans(sheet, spans, colour) {
  sheet.taken.push(...spans.map((span) => sheet.rect(span.box))); // no label may hide another text
  sheet.labels = s("g");
  if (spans.every((span) => sheet.label(span.box, span.text, colour, { must: false }))) sheet.svg.append(sheet.labels);
  else spans.forEach((span, i) => sheet.tag(span.box, i + 1));
  sheet.labels = sheet.svg;
}

/** The track's box on a frame, or on the nearest one it has, while the frame is within its stretch. */
function nearestPoint(points, frame) {
  if (!points.length || frame < points[0].frame || frame > points[points.length - 1].frame) return null;
  return points.reduce((best, p) => (Math.abs(p.frame - frame) < Math.abs(best.frame - frame) ? p : best));
}

const attributeText = (a) => `${a.name}: ${typeof a.value === "number" && !Number.isInteger(a.value) ? number(a.value, 2) : a.value}${a.unit ? ` ${a.unit}` : ""}`;

/** Where to look for a step's evidence: a frame, or null when any will do. */
function homeFrame(step, frames) {
  const found = step.found;
  if (!found) return step.asked ? step.asked.frame : null;
  if (found.op === "TRK") return (found.points.find((p) => p.box) ?? found.points[0] ?? { frame: null }).frame;
  if (found.op !== "TEMP") return found.frame;
  if (!found.segments.length || !frames.length) return found.first_frame;
  const { start_s, end_s } = found.segments[0];
  const middle = (start_s + end_s) / 2;
  return frames.reduce((best, f) => (Math.abs(f.time_s - middle) < Math.abs(best.time_s - middle) ? f : best)).frame;
}
