// All URLs are relative, so that the page also works below a path prefix.
fetch("openapi.json")
  .then((response) => response.json())
  .then((spec) => {
    spec.servers = [{ url: new URL(".", location).href.replace(/\/$/, "") }];
    spec.info.description +=
      "\n**On this page**, open `POST /api/auth/signup` or `POST /api/auth/login` below, and press *Execute*: the page " +
      "keeps the token and sends it with your next requests. The document is at [openapi.json](openapi.json).";
    const ui = SwaggerUIBundle({
      dom_id: "#swagger-ui",
      spec,
      deepLinking: true,
      tryItOutEnabled: true,
      responseInterceptor: (response) => {
        if (response.ok && response.obj?.token) {
          ui.preauthorizeApiKey("token", response.obj.token);
        }
        return response;
      },
    });
  });
