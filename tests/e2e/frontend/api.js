// A frontend of the API, which is at the address in the query of the page.
const api = new URLSearchParams(location.search).get("api");

async function send(method, path, { token, body, text, more = {} } = {}) {
  const headers = { ...more };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(new URL(path, api), { method, headers, body: body ? JSON.stringify(body) : text });
  const content = await response.text();
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    body: content ? JSON.parse(content) : null,
  };
}

// Returns the name of the error that is thrown instead of a response.
async function failure(...request) {
  try {
    return await send(...request);
  } catch (error) {
    return error.name;
  }
}

const signUp = (email, password) => send("POST", "/api/auth/signup", { body: { email, password } });
const logIn = (email, password) => send("POST", "/api/auth/login", { body: { email, password } });
const listTasks = (token, query = "") => send("GET", `/api/tasks${query}`, { token });
const createTask = (token, body) => send("POST", "/api/tasks", { token, body });
const showTask = (token, id) => send("GET", `/api/tasks/${id}`, { token });
const updateTask = (token, id, body) => send("PUT", `/api/tasks/${id}`, { token, body });
const deleteTask = (token, id) => send("DELETE", `/api/tasks/${id}`, { token });
const sendTitleOf = (length, method, path, token) => send(method, path, { token, body: { title: "x".repeat(length) } });
