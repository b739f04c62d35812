// Errors in words for people who do not know the protocol.

const BY_CODE = {
  unreachable: "The server does not respond. Is it still running?",
  not_json: "Something between this page and the server sent an unexpected response.",
  missing_api_key: "The server needs a key. Type it in at the top of the page.",
  wrong_api_key: "This key is wrong.",
  cross_site: "The server does not accept requests from this website.",
  body_too_large: "This is more than the server accepts in one request.",
  body_too_slow: "The connection was too slow: the server stopped waiting for the photo.",
  image_too_large: "The file has more bytes than the server accepts.",
  too_many_pixels: "The picture has more pixels than the server accepts.",
  too_many_parts: "The file is made of more pieces than any camera writes, so the server refuses it.",
  image_too_expensive: "Decoding this picture takes more memory or time than the server allows.",
  not_an_image: "This file is not a picture that the server can read.",
  unsupported_format: "The server cannot read this kind of picture.",
  damaged_image: "The picture is damaged or incomplete.",
  invalid_image: "The server cannot read this picture.",
  model_starting: "The model is still loading.",
  model_not_loaded: "No model is loaded.",
  queue_full: "The server is busy.",
  out_of_memory: "The server is short of memory.",
  draining: "The server is shutting down.",
  not_finished: "The server is shutting down.",
  internal_error: "Something went wrong in the server. Its log has the reason.",
};

const BY_STATUS = {
  401: BY_CODE.wrong_api_key,
  408: BY_CODE.body_too_slow,
  413: BY_CODE.body_too_large,
  500: BY_CODE.internal_error,
  503: "The server cannot serve requests right now: its model is being verified or loaded.",
};

/** The code of an error of this page's own, whose message is a sentence already. */
export const IN_WORDS = "in_words";

/** An error as a sentence. */
export function inPlainWords(error) {
  if (error.code === IN_WORDS) return error.message;
  return BY_CODE[error.code] ?? BY_STATUS[error.status] ?? asSentence(error.message);
}

/** The same about one photo among several: whether the rest can go on without it. */
export const concernsOnlyThePhoto = (error) =>
  [400, 413, 415, 422].includes(error.status) || error.code === IN_WORDS;

/** A text that begins with a capital and ends in a full stop. */
export function asSentence(text) {
  const sentence = text.charAt(0).toUpperCase() + text.slice(1);
  return !sentence || /[.!?…]$/.test(sentence) ? sentence : `${sentence}.`;
}
