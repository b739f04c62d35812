// Sends a request whenever its input changes, and shows the response.

import { announce } from "./announcer.js";
import { inPlainWords } from "./words.js";

const TYPING_PAUSE_MS = 250;

/**
 * A state machine of four states:
 *
 * - `empty`: no request was sent; a sentence says what is missing.
 * - `waiting`: a request is about to be sent or in progress; an earlier result is dimmed.
 * - `shown`: the result for the current input is shown.
 * - `problem`: the request failed; no earlier result is left.
 *
 * A request that was superseded is aborted: the server stops working on it, and its response is
 * never shown.
 */
export class Query {
  #ask;
  #show;
  #clear;
  #outcome;
  #results;
  #onChange;
  #timer;
  #controller = new AbortController();
  #found = null;

  /**
   * @param ask called with {signal, waiting}; resolves to what was found, as data that can be kept.
   * @param show shows what was found; returns it as a sentence.
   * @param clear takes away all that `show` has shown.
   * @param outcome the element that holds the sentence.
   * @param results the elements that hold the rest.
   * @param onChange called after each change of what is found, with that, or with null.
   */
  constructor({ ask, show, clear, outcome, results, onChange = () => {} }) {
    this.#ask = ask;
    this.#show = show;
    this.#clear = clear;
    this.#outcome = outcome;
    this.#results = results;
    this.#onChange = onChange;
  }

  /** The result for the current input; null if there is none. */
  get found() {
    return this.#outcome.dataset.state === "shown" ? this.#found : null;
  }

  /** Whether the result is, or will be, from the model with this fingerprint. */
  isOf(fingerprint) {
    const { state } = this.#outcome.dataset;
    return state === "waiting" || (state === "shown" && this.#found.fingerprint === fingerprint);
  }

  /** The input has changed: send a request once it has been stable for a moment. */
  ask(delay = TYPING_PAUSE_MS) {
    const { signal } = this.#supersede();
    this.#enter("waiting", this.#outcome.textContent);
    this.#timer = setTimeout(() => this.#run(signal), delay);
  }

  /** The input is not ready yet: dim the result until then. */
  hold() {
    this.#supersede();
    this.#enter("waiting", this.#outcome.textContent);
  }

  /** There is nothing to send: forget the result, and show `sentence` instead. */
  drop(sentence = "") {
    this.#supersede();
    this.#forget();
    this.#enter("empty", sentence);
  }

  /** The input cannot be sent: forget the result, and say why. */
  refuse(sentence) {
    this.drop();
    this.#enter("problem", sentence);
    this.#announce(sentence);
  }

  /** Show the result from before the page was reloaded. */
  restore(found) {
    this.#supersede();
    this.#keep(found);
  }

  #supersede() {
    clearTimeout(this.#timer);
    this.#controller.abort();
    this.#controller = new AbortController();
    return this.#controller;
  }

  async #run(signal) {
    this.#enter("waiting", "Asking…");
    const waiting = (problem, seconds) =>
      this.#enter("waiting", `${inPlainWords(problem)} Trying again in ${seconds} s.`);
    try {
      const found = await this.#ask({ signal, waiting });
      if (signal.aborted) return;
      this.#keep(found);
      this.#announce(this.#outcome.textContent);
    } catch (error) {
      if (signal.aborted) return;
      this.#forget();
      this.#enter("problem", inPlainWords(error));
      this.#announce(this.#outcome.textContent);
    }
  }

  #keep(found) {
    this.#found = found;
    this.#enter("shown", this.#show(found));
    this.#onChange(found);
  }

  #forget() {
    this.#found = null;
    this.#clear();
    this.#onChange(null);
  }

  #enter(state, sentence) {
    this.#outcome.dataset.state = state;
    this.#outcome.textContent = sentence;
    for (const result of this.#results) {
      result.toggleAttribute("data-stale", state === "waiting");
    }
  }

  // Nothing is announced for a panel that is hidden.
  #announce(sentence) {
    if (this.#outcome.checkVisibility()) announce(sentence);
  }
}
