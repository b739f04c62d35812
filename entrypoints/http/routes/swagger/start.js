// Puts Swagger UI on its page. A file of its own, so that the page needs no inline script.

const container = document.getElementById("swagger-container");

// A link within the button of each call is one control inside another, which no keyboard can reach.
const plainText = ({ React }) => ({
  components: { DeepLink: ({ text }) => React.createElement("span", null, text) },
});

// Names for screen readers, of controls that Swagger UI leaves without one.
const NAMES = {
  ".servers select": "Server",
  ".examples-select-element": "Example",
  ".body-param__text": "Request body",
  "textarea.curl": "The request as a curl command",
  ".copy-to-clipboard button": "Copy",
};

function complete() {
  for (const [selector, label] of Object.entries(NAMES)) {
    for (const control of container.querySelectorAll(`${selector}:not([aria-label])`)) {
      control.setAttribute("aria-label", label);
    }
  }
  // What scrolls must be reachable by keyboard.
  for (const text of container.querySelectorAll("pre.microlight:not([tabindex])")) {
    text.tabIndex = 0;
  }
}

new MutationObserver(complete).observe(container, { childList: true, subtree: true });

SwaggerUIBundle({
  url: container.dataset.schema,
  dom_id: "#swagger-container",
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
  syntaxHighlight: false, // its colours are too faint on their ground
  plugins: [plainText],
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
