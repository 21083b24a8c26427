"use strict";

// Not as the page's own address, which may hold a name and a password: requests must not.
const here = window.location.origin;

window.ui = SwaggerUIBundle({
  url: `${here}/openapi.json`,
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "list",
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  validatorUrl: null,
  queryConfigEnabled: false,
});
