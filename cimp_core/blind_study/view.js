"use strict";

// Pictures side by side, with one contrast and one view for all of them. A picture is {width, height, values}, one byte
// a pixel; the view is a middle, in pixels of the picture, and a zoom that is 1 where the whole picture is seen.
class View {
  static MOST = 32;

  constructor(canvases, changed) {
    this.canvases = canvases;
    this.changed = changed; // called when zoom or contrast were changed
    this.pictures = canvases.map(() => null);
    this.drawn = canvases.map(() => document.createElement("canvas"));
    const watch = new ResizeObserver(() => this.draw());
    for (const canvas of canvases) {
      watch.observe(canvas);
      this.#follow(canvas);
    }
    this.reset();
  }

  // Pictures for the canvases, in their order, null for none; drawn when this returns.
  show(pictures) {
    this.pictures = pictures;
    this.reset();
  }

  reset() {
    const one = this.pictures.find(Boolean) ?? { width: 1, height: 1 };
    this.zoom = 1;
    this.x = one.width / 2;
    this.y = one.height / 2;
    this.setContrast(0, 255, 1);
  }

  // Grey values that become black and white, and the exponent between them: above 1 the middle is brighter.
  setContrast(black, white, gamma) {
    Object.assign(this, { black, white, gamma });
    const table = Uint32Array.from({ length: 256 }, (_, value) => {
      const share = Math.min(1, Math.max(0, (value - black) / (white - black)));
      const grey = Math.round(255 * share ** (1 / gamma));
      return 0xff000000 | (grey << 16) | (grey << 8) | grey;
    });
    this.pictures.forEach((picture, k) => {
      if (!picture) return;
      const { width, height, values } = picture, canvas = this.drawn[k];
      const context = Object.assign(canvas, { width, height }).getContext("2d");
      const image = context.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
      for (let i = 0; i < values.length; i++) pixels[i] = table[values[i]];
      context.putImageData(image, 0, 0);
    });
    this.draw();
  }

  // Zoom by a factor; the point of a canvas, or its middle, stays where it is. All lengths here are CSS pixels.
  zoomBy(factor, canvas = this.canvases[0], left = canvas.clientWidth / 2, top = canvas.clientHeight / 2) {
    const before = this.#scale(), dx = left - canvas.clientWidth / 2, dy = top - canvas.clientHeight / 2;
    this.zoom = Math.min(View.MOST, Math.max(1, this.zoom * factor));
    const after = this.#scale();
    this.x += dx / before - dx / after;
    this.y += dy / before - dy / after;
    this.draw();
  }

  // Move the pictures under the canvases.
  moveBy(dx, dy) {
    const scale = this.#scale();
    this.x -= dx / scale;
    this.y -= dy / scale;
    this.draw();
  }

  draw() {
    this.#keepInside();
    const ratio = window.devicePixelRatio || 1;
    this.canvases.forEach((canvas, k) => {
      const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
      if (!width || !height) return; // not on the screen
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      const context = canvas.getContext("2d");
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, width, height);
      if (!this.pictures[k]) return;
      const scale = this.#scale() * ratio;
      context.imageSmoothingEnabled = scale < 3; // from here on the pixels themselves are what there is to see
      context.imageSmoothingQuality = "high";
      context.setTransform(scale, 0, 0, scale, width / 2 - this.x * scale, height / 2 - this.y * scale);
      context.drawImage(this.drawn[k], 0, 0);
    });
    this.changed(this);
  }

  // CSS pixels for a pixel of the picture; the same on all canvases, however they are laid out.
  #scale() {
    const one = this.pictures.find(Boolean), seen = this.canvases.filter((canvas) => canvas.clientWidth && canvas.clientHeight);
    if (!one || !seen.length) return 1;
    return this.zoom * Math.min(...seen.flatMap((c) => [c.clientWidth / one.width, c.clientHeight / one.height]));
  }

  #keepInside() {
    const one = this.pictures.find(Boolean), canvas = this.canvases[0], scale = this.#scale();
    if (!one) return;
    const clamp = (value, size, seen) =>
      seen >= size ? size / 2 : Math.min(size - seen / 2, Math.max(seen / 2, value));
    this.x = clamp(this.x, one.width, canvas.clientWidth / scale);
    this.y = clamp(this.y, one.height, canvas.clientHeight / scale);
  }

  // Wheel, drag, two fingers, and a tap that brings a point to the middle, for those who cannot drag.
  #follow(canvas) {
    const held = new Map();
    let far = 0;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const middle = () => {
      const points = [...held.values()], [[ax, ay], [bx, by]] = [points[0], points[points.length - 1]];
      return { x: (ax + bx) / 2, y: (ay + by) / 2, apart: Math.hypot(ax - bx, ay - by) };
    };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const step = event.deltaY * (event.deltaMode === 1 ? 30 : 1) * (event.ctrlKey ? 5 : 1); // ctrl: a pinch on a pad
      this.zoomBy(Math.exp(-0.002 * Math.max(-300, Math.min(300, step))), canvas, ...place(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      far = held.size ? Infinity : 0;
      held.set(event.pointerId, place(event));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held.has(event.pointerId)) return;
      const before = middle();
      held.set(event.pointerId, place(event));
      const now = middle();
      far += Math.hypot(now.x - before.x, now.y - before.y);
      this.moveBy(now.x - before.x, now.y - before.y);
      if (before.apart && now.apart) this.zoomBy(now.apart / before.apart, canvas, now.x, now.y);
    });
    canvas.addEventListener("pointerup", (event) => {
      if (!held.delete(event.pointerId)) return;
      const [left, top] = place(event);
      if (far < 6 && this.zoom > 1) this.moveBy(canvas.clientWidth / 2 - left, canvas.clientHeight / 2 - top);
    });
    canvas.addEventListener("pointercancel", (event) => held.delete(event.pointerId));
  }
}
