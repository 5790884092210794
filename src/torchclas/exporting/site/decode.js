// The pixels of a picture, as torchclas.data.decode has them: turned as EXIF says, without colour management or alpha.

const JPEG = [0xff, 0xd8];
const PNG = [0x89, 0x50, 0x4e, 0x47];

/** Why a picture cannot be classified: `key` is a key of text.js. */
export class Unreadable extends Error {
  constructor(key, message) {
    super(message);
    this.key = key;
  }
}

/** RGBA bytes of a file or a frame: {data, width, height}; what alpha hides is there. Throws Unreadable. */
export async function decode(source, maxPixels) {
  const bitmap = source instanceof Blob ? await open(source) : source;
  try {
    const { width, height } = bitmap;
    if (width * height > maxPixels) throw new Unreadable("kind.too_large", `${width} × ${height}`);
    const data = read(bitmap);
    return { data: isOpaque(data) ? data : unveiled(bitmap), width, height };
  } finally {
    bitmap.close();
  }
}

async function open(file) {
  if (!(await reachesItsEnd(file))) throw new Unreadable("kind.bad_image", "truncated");
  try {
    return await createImageBitmap(file, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch (error) {
    throw new Unreadable("kind.bad_image", error.message);
  }
}

/** Whether a JPEG or PNG is complete by its own structure; browsers show what there is of one that is not. */
async function reachesItsEnd(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const begins = (mark) => mark.every((byte, n) => bytes[n] === byte);
  if (begins(JPEG)) return last(bytes, 0xd9) > last(bytes, 0xda); // the end of the image after the last scan's start
  if (!begins(PNG)) return true;
  const view = new DataView(bytes.buffer);
  for (let at = 8; at + 12 <= bytes.length; ) {
    const next = at + 12 + view.getUint32(at);
    if (view.getUint32(at + 4) === 0x49454e44) return next <= bytes.length; // IEND
    at = next;
  }
  return false;
}

/** Where a marker of JPEG stands for the last time. */
function last(bytes, marker) {
  for (let at = bytes.lastIndexOf(marker); at > 0; at = bytes.lastIndexOf(marker, at - 1)) {
    if (bytes[at - 1] === 0xff) return at;
  }
  return -1;
}

function read(bitmap) {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Unreadable("kind.too_large", `${width} × ${height}`);
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, width, height).data;
}

function isOpaque(data) {
  for (let at = 3; at < data.length; at += 4) if (data[at] !== 255) return false;
  return true;
}

/** A canvas multiplies colours by alpha, and what is transparent is lost; a texture does not. */
function unveiled(bitmap) {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) {
    throw new Unreadable("kind.alpha", `${width} × ${height}`);
  }
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, gl.getParameter(gl.TEXTURE_BINDING_2D), 0);
  const data = new Uint8ClampedArray(4 * width * height);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(data.buffer));
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return data;
}
