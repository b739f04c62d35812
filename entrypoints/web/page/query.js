// A request that is sent again whenever its input changes, and what is shown of its response.

import { announce } from "./announcer.js";
import { inPlainWords } from "./words.js";

const TYPING_PAUSE_MS = 250;

/**
 * A state machine of four states:
 *
 * - `empty`: nothing was asked; a sentence says what is missing.
 * - `waiting`: a request is about to be sent or under way; what an earlier one found is dimmed.
 * - `shown`: what is shown belongs to the input as it is.
 * - `problem`: the request failed; nothing of an earlier one is left.
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

  /** What was found for the input as it is; null while nothing is. */
  get found() {
    return this.#outcome.dataset.state === "shown" ? this.#found : null;
  }

  /** Whether what is shown was made by the model with this fingerprint, or is about to be. */
  isOf(fingerprint) {
    const { state } = this.#outcome.dataset;
    return state === "waiting" || (state === "shown" && this.#found.fingerprint === fingerprint);
  }

  /** The input has changed: ask once it has been still for a moment. */
  ask(delay = TYPING_PAUSE_MS) {
    const { signal } = this.#supersede();
    this.#enter("waiting", this.#outcome.textContent);
    this.#timer = setTimeout(() => this.#run(signal), delay);
  }

  /** What the input depends on is under way: what was found is dimmed until then. */
  hold() {
    this.#supersede();
    this.#enter("waiting", this.#outcome.textContent);
  }

  /** There is nothing to ask: forget what was found, and say `sentence` instead. */
  drop(sentence = "") {
    this.#supersede();
    this.#forget();
    this.#enter("empty", sentence);
  }

  /** The input cannot be sent: forget what was found, and say why. */
  refuse(sentence) {
    this.drop();
    this.#enter("problem", sentence);
    this.#announce(sentence);
  }

  /** Show what was found before the page was reloaded. */
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

  // What happens in a panel that is not shown is nobody's news.
  #announce(sentence) {
    if (this.#outcome.checkVisibility()) announce(sentence);
  }
}
