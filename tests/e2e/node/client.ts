import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

type Task = components["schemas"]["Task"];
type Changes = components["schemas"]["TodoUpdateTask"];
type Fault = components["schemas"]["Error"];

const api = createClient<paths>({ baseUrl: process.env.API_URL ?? "http://localhost:8000" });
let token: string | undefined;

api.use({
  onRequest({ request }) {
    if (token) request.headers.set("Authorization", `Bearer ${token}`);
  },
});

function explain(response: Response, fault?: Fault): string {
  switch (response.status) {
    case 400:
      return fault?.details?.map(({ field, message }) => `${field}: ${message}`).join("; ") ?? "Wrong input.";
    case 401:
      token = undefined;
      return fault?.error === "Unauthorized" ? "Please log in again." : "Wrong email or password.";
    case 409:
      return "There is an account with this email; log in.";
    case 413:
      return "This is too long.";
    case 429:
      return `Try again in ${response.headers.get("Retry-After")} seconds.`;
    default:
      return `${fault?.error ?? "No answer"} (${response.headers.get("X-Request-ID")})`;
  }
}

async function signUp(email: string, password: string): Promise<string | undefined> {
  const { data, error, response } = await api.POST("/api/auth/signup", { body: { email, password } });
  if (!data) return explain(response, error);
  token = data.token;
}

async function logIn(email: string, password: string): Promise<string | undefined> {
  const { data, error, response } = await api.POST("/api/auth/login", { body: { email, password } });
  if (!data) return explain(response, error);
  token = data.token;
}

async function change(id: string, changes: Changes): Promise<Task> {
  const { data, error, response } = await api.PUT("/api/tasks/{id}", { params: { path: { id } }, body: changes });
  if (!data) throw new Error(explain(response, error));
  return data.task;
}

async function* everyPage(perPage: number): AsyncGenerator<Task[]> {
  for (let page = 1, pages = 1; page <= pages; page++) {
    const { data, error, response } = await api.GET("/api/tasks", {
      params: { query: { page, per_page: perPage } },
    });
    if (!data) throw new Error(explain(response, error));
    yield data.tasks;
    if ("pagination" in data) pages = data.pagination.pages;
  }
}

function expect<T>(data: T | undefined): T {
  if (data === undefined) throw new Error("an answer without data");
  return data;
}

const email = `${crypto.randomUUID()}@example.com`;
const password = "correct horse";
const health = expect((await api.GET("/health")).data);
const problems = {
  noToken: await api.GET("/api/tasks").then(({ response, error }) => explain(response, error)),
  shortPassword: await signUp(email, "short"),
  signUp: await signUp(email, password),
  emailTaken: await signUp(email, password),
  wrongPassword: await logIn(email, "wrong horse"),
  logIn: await logIn(email, password),
};

const first = expect((await api.POST("/api/tasks", { body: { title: "Buy groceries" } })).data).task;
const second = expect((await api.POST("/api/tasks", { body: { title: "Read", description: "Slowly" } })).data).task;
const descriptions: (string | null)[] = [first.description, second.description];
const all: Task[] = expect((await api.GET("/api/tasks")).data).tasks;
const paged: string[][] = [];
for await (const tasks of everyPage(1)) paged.push(tasks.map((task) => task.title));

const one = { params: { path: { id: second.id } } };
const shown = await api.GET("/api/tasks/{id}", one);
const etag = shown.response.headers.get("ETag") ?? "";
const again = await api.GET("/api/tasks/{id}", { params: { ...one.params, header: { "If-None-Match": etag } } });
const updated = await change(second.id, { completed: true });
const cleared = await change(second.id, { description: null });
const deleted = await api.DELETE("/api/tasks/{id}", one);
const gone = await api.GET("/api/tasks/{id}", one);
const empty = await api.POST("/api/tasks", { body: { title: " " } });
const huge = await api.POST("/api/tasks", { body: { title: "Read", description: "x".repeat(2 ** 20) } });
let tooMany: string | undefined;
for (let tries = 0; tries < 9 && !tooMany?.startsWith("Try"); tries++) tooMany = await logIn(email, "wrong horse");

console.log(
  JSON.stringify({
    health: health.status,
    problems: {
      ...problems,
      gone: gone.error?.error,
      empty: explain(empty.response, empty.error),
      huge: explain(huge.response, huge.error),
      tooMany,
    },
    descriptions,
    all: all.map((task) => task.title),
    paged,
    shown: expect(shown.data).task.title,
    again: again.response.status,
    updated: [updated.title, updated.description, updated.completed],
    cleared: [cleared.description, cleared.completed, cleared.updated_at > updated.updated_at],
    deleted: deleted.response.status,
  }),
);
