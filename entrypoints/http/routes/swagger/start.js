// Puts Swagger UI on its page. A file of its own, so that the page needs no inline script.

SwaggerUIBundle({
  url: document.getElementById("swagger-container").dataset.schema,
  dom_id: "#swagger-container",
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
