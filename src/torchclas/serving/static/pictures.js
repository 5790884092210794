// Pictures that a visitor gives: chosen, dropped, pasted, or taken.
import { button, el, say } from "./dom.js";

const PICTURE = /\.(jpe?g|png|webp|gif|bmp|dib|tiff?|avif|jp2|j2k|jpx|ppm|pgm)$/i;

let count = 0;

/** A picture and all that comes to be known of it. */
export function toItem(file, name = file.webkitRelativePath || file.name) {
  return { id: ++count, name, file, url: URL.createObjectURL(file), results: new Map(), seen: new Map() };
}

/** Forget pictures. */
export function release(items) {
  for (const item of items) {
    URL.revokeObjectURL(item.url);
    for (const address of item.seen.values()) URL.revokeObjectURL(address);
  }
}

const isPicture = (file) => file.type.startsWith("image/") || PICTURE.test(file.name);
const byName = (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true });

/** The pictures of a folder that was chosen; other files in it are passed over. */
export const ofFolder = (files) => [...files].filter(isPicture).map((file) => toItem(file)).sort(byName);

/** What was dropped: files as they are, and the pictures in folders. */
export async function ofDrop(transfer) {
  // The entries are there during the event alone: they are taken before anything is waited for.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files].map((file) => toItem(file));
  const found = [];
  for (const entry of entries) await walk(entry, found, entry.isDirectory);
  return found.sort(byName);
}

async function walk(entry, found, inFolder) {
  if (entry.isFile) {
    const file = await new Promise((done, stop) => entry.file(done, stop));
    if (!inFolder || isPicture(file)) found.push(toItem(file, entry.fullPath.replace(/^\//, "")));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, stop) => reader.readEntries(done, stop)); // a hundred at a time
    if (!some.length) return;
    for (const inner of some) await walk(inner, found, true);
  }
}

/**
 * The button of the camera, where there is one; `give` is handed the picture. `watch`, where it is given, shows beside
 * the video what is seen: it gets the video, the place, and whether to go on.
 */
export function camera(give, watch) {
  if (navigator.mediaDevices?.getUserMedia) {
    return button("plain", "try.camera", () => live(give, watch));
  }
  if (!matchMedia("(pointer: coarse)").matches) return null;
  // Without https a browser has no video for a page, but a phone's own camera takes pictures for a form.
  const input = el("input", { type: "file", accept: "image/*", capture: "environment", hidden: true });
  input.addEventListener("change", () => input.files[0] && give(input.files[0]));
  return button("plain", "try.camera", () => input.click());
}

async function live(give, watch) {
  const video = el("video", { autoplay: true, muted: true, playsInline: true });
  const why = el("p", { className: "why" });
  const take = button("primary", "camera.take", () => {
    const canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => (dialog.close(), give(blob)), "image/jpeg", 0.95);
  });
  take.disabled = true;
  const seen = watch ? el("div", { className: "watched" }) : null;
  video.addEventListener("loadeddata", () => {
    take.disabled = false;
    watch?.(video, seen, () => dialog.open);
  });
  const buttons = el("div", { className: "row" }, take, button("plain", "camera.close", () => dialog.close()));
  const dialog = el("dialog", { label: "camera.title", className: "camera" }, video, seen, why, buttons);
  let stream = null;
  const stop = () => stream?.getTracks().forEach((track) => track.stop());
  dialog.addEventListener("close", () => (stop(), dialog.remove()));
  document.body.append(dialog);
  dialog.showModal();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (!dialog.open) stop();
    video.srcObject = stream;
  } catch (error) {
    say(why, "camera.refused", { why: error.message });
    video.remove();
  }
}
