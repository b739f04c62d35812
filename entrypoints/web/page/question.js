// A question that is asked anew whenever its input changes.

import { Problem } from "./server.js";

const TYPING_PAUSE_MS = 250;

/**
 * Waits until the input has settled, asks, and shows what came. A question that was superseded is
 * aborted: the server stops working on it, and its answer is never shown.
 */
export class Question {
  #work;
  #outcome;
  #timer;
  #controller = new AbortController();

  /**
   * @param work called with {signal, waiting}; asks and shows; returns what the outcome should say.
   * @param outcome the element that says what is going on.
   */
  constructor(work, outcome) {
    this.#work = work;
    this.#outcome = outcome;
  }

  /** The input has changed; ask once it has been still for a moment. */
  ask(delay = TYPING_PAUSE_MS) {
    this.drop();
    const { signal } = this.#controller;
    this.#timer = setTimeout(() => this.#run(signal), delay);
  }

  /** Forget what was asked; says `text` instead. */
  drop(text = "") {
    clearTimeout(this.#timer);
    this.#controller.abort();
    this.#controller = new AbortController();
    this.#say("", text);
  }

  async #run(signal) {
    this.#say("busy", "Asking…");
    const waiting = (problem, seconds) =>
      this.#say("busy", `${sentence(problem.message)} Trying again in ${seconds} s.`);
    try {
      const text = await this.#work({ signal, waiting });
      if (!signal.aborted) this.#say("", text ?? "");
    } catch (error) {
      if (signal.aborted) return;
      const code = error instanceof Problem ? ` (${error.code})` : "";
      this.#say("problem", sentence(error.message) + code);
    }
  }

  #say(state, text) {
    this.#outcome.dataset.state = state;
    this.#outcome.textContent = text;
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
