// A list of texts that are edited in place, each with its result as a bar behind it.

export class Rows {
  #list;
  #noun;
  #changed;

  /**
   * @param list the element that holds the rows.
   * @param noun what a row is called, such as "label".
   * @param changed called after every edit.
   */
  constructor(list, noun, changed) {
    this.#list = list;
    this.#noun = noun;
    this.#changed = changed;
  }

  /** The texts to send: each once, none blank. */
  get texts() {
    return [...this.#usable().keys()];
  }

  /** The texts of all rows, as typed. */
  get all() {
    return [...this.#list.children].map((row) => row.querySelector("input").value);
  }

  add(text = "") {
    const template = document.getElementById("row-template");
    const row = template.content.cloneNode(true).firstElementChild;
    const input = row.querySelector("input");
    input.value = text;
    input.addEventListener("input", () => this.#edited());
    input.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter") this.add().focus();
      if (event.key === "Backspace" && !input.value) {
        event.preventDefault();
        this.#remove(row);
      }
    });
    row.querySelector("button").addEventListener("click", () => this.#remove(row));
    this.#list.append(row);
    this.#name();
    return input;
  }

  /** Shows results. `share` makes a bar's width in [0, 1] of a value, `words` its text. */
  show(results, { share, words, best }) {
    for (const [text, row] of this.#usable()) {
      const value = results[text];
      row.style.setProperty("--share", share(value));
      row.toggleAttribute("data-best", text === best);
      row.querySelector(".value").textContent = words(value);
    }
  }

  /** Takes all results away. */
  clear() {
    for (const row of this.#list.children) clearRow(row);
  }

  #usable() {
    const rows = new Map();
    for (const row of this.#list.children) {
      const text = row.querySelector("input").value.trim();
      const repeated = rows.has(text);
      row.toggleAttribute("data-repeated", repeated);
      if (!text || repeated) clearRow(row);
      else rows.set(text, row);
    }
    return rows;
  }

  #edited() {
    this.#name();
    this.#changed();
  }

  #remove(row) {
    const neighbour = row.previousElementSibling ?? row.nextElementSibling;
    if (!neighbour) return; // one row always stays
    row.remove();
    neighbour.querySelector("input").focus();
    this.#edited();
  }

  #name() {
    [...this.#list.children].forEach((row, place) => {
      const input = row.querySelector("input");
      input.setAttribute("aria-label", `${this.#noun} ${place + 1}`);
      input.placeholder = `another ${this.#noun}`;
      row
        .querySelector("button")
        .setAttribute("aria-label", `Remove ${input.value.trim() || `${this.#noun} ${place + 1}`}`);
    });
  }
}

function clearRow(row) {
  row.style.removeProperty("--share");
  row.removeAttribute("data-best");
  row.querySelector(".value").textContent = "";
}
