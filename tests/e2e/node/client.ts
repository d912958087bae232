import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

type Task = components["schemas"]["Task"];
type NewTask = components["schemas"]["TodoCreateTask"];
type Changes = components["schemas"]["TodoUpdateTask"];
type Fault = components["schemas"]["ErrorResponse"];

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

async function retry<Answer extends { response: Response }>(send: () => Promise<Answer>): Promise<Answer> {
  for (let pause = 250; ; pause *= 2) {
    const last = pause > 4000;
    try {
      const answer = await send();
      if (answer.response.status < 500 || last) return answer;
    } catch (error) {
      if (last) throw error; // no network
    }
    await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random())));
  }
}

async function create(body: NewTask): Promise<Task> {
  const header = { "Idempotency-Key": crypto.randomUUID() }; // one for all attempts
  const { data, error, response } = await retry(() => api.POST("/api/tasks", { params: { header }, body }));
  if (!data) throw new Error(explain(response, error));
  return data.task;
}

interface EditForm {
  task: Task; // as it was loaded
  etag: string;
  changes: Changes; // what the user has typed
  message: string;
}

async function load(id: string): Promise<EditForm> {
  const { data, error, response } = await api.GET("/api/tasks/{id}", { params: { path: { id } } });
  if (!data) throw new Error(explain(response, error));
  return { task: data.task, etag: response.headers.get("ETag")!, changes: {}, message: "" };
}

async function save(form: EditForm): Promise<EditForm> {
  const { data, error, response } = await api.PUT("/api/tasks/{id}", {
    params: { path: { id: form.task.id }, header: { "If-Match": form.etag } },
    body: form.changes,
  });
  if (response.status === 412) {
    const message = "This task has changed since you opened it. Compare, and save again to overwrite it.";
    return { ...(await load(form.task.id)), changes: form.changes, message };
  }
  if (!data) return { ...form, message: explain(response, error) };
  return { task: data.task, etag: response.headers.get("ETag")!, changes: {}, message: "Saved." };
}

async function* everyPage(perPage: number): AsyncGenerator<Task[]> {
  for (let page = 1, pages = 1; page <= pages; page++) {
    const { data, error, response } = await api.GET("/api/tasks", {
      params: { query: { page, per_page: perPage } },
    });
    if (!data) throw new Error(explain(response, error));
    yield data.tasks;
    pages = data.pagination?.pages ?? 1;
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

let lost = 0;
api.use({
  onResponse({ request }) {
    if (request.headers.has("Idempotency-Key") && lost++ < 2) throw new TypeError("the network failed");
  },
});
const once = await create({ title: "Once" });
const onceStored = expect((await api.GET("/api/tasks")).data).tasks.filter((task) => task.title === "Once");
const [form, otherTab] = [await load(once.id), await load(once.id)];
const faster = await save({ ...otherTab, changes: { description: "Faster" } });
const conflict = await save({ ...form, changes: { title: "Twice" } });
const resolved = await save(conflict);
const stale = { params: { path: { id: once.id }, header: { "If-Match": form.etag } } };
const kept = await api.DELETE("/api/tasks/{id}", stale);

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
    once: [lost, onceStored.length, onceStored[0]?.id === once.id],
    edited: [faster.message, conflict.task.description, conflict.changes.title, conflict.message.slice(0, 21)],
    resolved: [resolved.task.title, resolved.task.description, resolved.message],
    kept: kept.response.status,
    deleted: deleted.response.status,
  }),
);
