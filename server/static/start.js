// Every address is relative, so that the page works behind a path too.
const ui = SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: "openapi.json",
  deepLinking: true,
  tryItOutEnabled: true,
  // Whoever registers or logs in on the page is signed in on it.
  responseInterceptor: (response) => {
    if (response.ok && response.obj && response.obj.token) {
      ui.preauthorizeApiKey("token", response.obj.token);
    }
    return response;
  },
});
