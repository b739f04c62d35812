// Converts files that the server cannot read into JPEGs, if the browser can show them.

// The server's limits, which it writes into the page.
const { maxImageBytes, maxPixels } = document.documentElement.dataset;
const MAX_BYTES = Number(maxImageBytes);
const MAX_PIXELS = Number(maxPixels);
// The server decodes a JPEG at a fraction of its size, so JPEGs may have more pixels.
const MAX_JPEG_PIXELS = Number(document.documentElement.dataset.maxJpegPixels);
// Models look at 224 to 512 pixels a side. This is far more, and quick to send.
const SCALED_PIXELS = Math.min(4_000_000, MAX_PIXELS);
const QUALITY = 0.94;

const TAKEN = new Set(["JPEG", "PNG", "GIF", "BMP", "WebP"]);

// How files of a format begin. `?` stands for any character.
const BEGINNINGS = [
  ["JPEG", "\xff\xd8\xff"],
  ["PNG", "\x89PNG"],
  ["GIF", "GIF8"],
  ["BMP", "BM"],
  ["WebP", "RIFF????WEBP"],
  ["AVIF", "????ftypavi"],
  ["HEIC", "????ftyphei"],
  ["HEIC", "????ftyphev"],
  ["HEIC", "????ftypmif"],
  ["HEIC", "????ftypmsf"],
  ["TIFF", "II*\x00"],
  ["TIFF", "MM\x00*"],
  ["JPEG XL", "\xff\x0a"],
  ["JPEG XL", "\x00\x00\x00\x0cJXL "],
  ["SVG", "<svg"],
  ["SVG", "<?xml"],
];

/**
 * The form of a file that can be sent.
 *
 * @returns the blob; for a converted one its `extension` and a `note` that says what was done; a
 *   `refusal` if neither the server nor this browser can read the file.
 */
export async function readable(file) {
  const format = await formatOf(file);
  const taken = TAKEN.has(format);
  const picture = await decoded(file);
  if (!picture) {
    // For the server's own formats, let the server decide: it may read what the browser cannot.
    if (taken && file.size <= MAX_BYTES) return { blob: file, refusal: null };
    return { blob: file, refusal: whyRefused(file.name, format, taken) };
  }
  const pixels = picture.naturalWidth * picture.naturalHeight;
  const most = format === "JPEG" ? MAX_JPEG_PIXELS : MAX_PIXELS;
  const large = file.size > MAX_BYTES || pixels > most;
  if (taken && !large) return { blob: file, refusal: null };
  const scaled = await asJpeg(picture, large ? SCALED_PIXELS : MAX_PIXELS);
  if (!scaled) return { blob: file, refusal: whyRefused(file.name, format, taken) };
  const size = `${scaled.width} × ${scaled.height}`;
  const note = large
    ? `Too large for the server, so this browser scaled it down to ${size} pixels.`
    : `The server does not read ${format ?? "this format"}, so this browser converted it to JPEG.`;
  return { blob: scaled.blob, extension: "jpg", note, refusal: null };
}

function whyRefused(name, format, taken) {
  if (taken) {
    return `${name} is larger than the server accepts, and this browser cannot scale it down.`;
  }
  if (!format) return `${name} is not a picture that the server or this browser can read.`;
  return `${name} is in the format ${format}, which neither the server nor this browser can read. Save it as JPEG or PNG first.`;
}

async function formatOf(file) {
  const bytes = new Uint8Array(await file.slice(0, 16).arrayBuffer());
  const text = String.fromCharCode(...bytes);
  const begins = ([, beginning]) =>
    [...beginning].every((character, place) => character === "?" || character === text[place]);
  return BEGINNINGS.find(begins)?.[0] ?? null;
}

/** The picture as the browser shows it, upright; null if it cannot. */
async function decoded(file) {
  const picture = new Image();
  const url = URL.createObjectURL(file);
  picture.src = url;
  try {
    await picture.decode();
    return picture.naturalWidth && picture.naturalHeight ? picture : null;
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** A JPEG of at most so many pixels and of at most the server's bytes; null if that fails. */
async function asJpeg(picture, mostPixels) {
  const { naturalWidth, naturalHeight } = picture;
  let scale = Math.min(1, Math.sqrt(mostPixels / (naturalWidth * naturalHeight)));
  for (let attempt = 0; attempt < 5; attempt += 1, scale *= 0.7) {
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.floor(naturalWidth * scale));
    canvas.height = Math.max(1, Math.floor(naturalHeight * scale));
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff"; // as the server shows what is transparent
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((resolve) => {
      canvas.toBlob(resolve, "image/jpeg", QUALITY);
    });
    if (!blob) return null;
    if (blob.size <= MAX_BYTES) return { blob, width: canvas.width, height: canvas.height };
  }
  return null;
}
