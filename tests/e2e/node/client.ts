import { api, change, create, everyPage, explain, load, logIn, save, signUp } from "./api"; // the code of the page
import type { components } from "./schema";

type Task = components["schemas"]["Task"];

function expect<T>(data: T | undefined): T {
  if (data === undefined) throw new Error("a response without data");
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
