import { api, change, create, everyPage, explain, load, logIn, save, signUp } from "./api"; // the code of the page

const email = "alice@example.com";
const password = "correct horse";
const { data: health } = await api.GET("/health");
const noToken = await api.GET("/api/tasks");
const problems = {
  noToken: explain(noToken.response, noToken.error),
  shortPassword: await signUp(email, "short"),
  signUp: await signUp(email, password),
  emailTaken: await signUp(email, password),
  wrongPassword: await logIn(email, "wrong horse"),
  logIn: await logIn(email, password),
};

const read = await create({ title: "Read", description: "Slowly" });
let attempts = 0;
api.use({
  onResponse({ request }) {
    if (request.headers.has("Idempotency-Key") && attempts++ < 2) throw new TypeError("the network failed");
  },
});
const once = await create({ title: "Once" });
const pages: string[][] = [];
for await (const tasks of everyPage(1)) pages.push(tasks.map((task) => task.title));
const changed = await change(read.id, { description: null, completed: true });

const [form, otherTab] = [await load(once.id), await load(once.id)];
const faster = await save({ ...otherTab, changes: { description: "Faster" } });
const conflict = await save({ ...form, changes: { title: "Twice" } });
const resolved = await save(conflict);

const one = { params: { path: { id: read.id } } };
const deleted = await api.DELETE("/api/tasks/{id}", one);
const gone = await api.GET("/api/tasks/{id}", one);
const huge = await api.POST("/api/tasks", { body: { title: "Read", description: "x".repeat(2 ** 20) } });
let tooMany: string | undefined;
for (let tries = 0; tries < 9 && !tooMany?.startsWith("Try"); tries++) tooMany = await logIn(email, "wrong horse");

console.log(
  JSON.stringify({
    health,
    problems: {
      ...problems,
      gone: explain(gone.response, gone.error).replace(gone.response.headers.get("X-Request-ID")!, "id"),
      huge: explain(huge.response, huge.error),
      tooMany,
    },
    attempts,
    pages,
    changed: [changed.title, changed.description, changed.completed],
    edited: [faster.message, conflict.task.description, conflict.changes.title, conflict.message.slice(0, 21)],
    resolved: [resolved.task.title, resolved.task.description, resolved.message],
    deleted: deleted.response.status,
  }),
);
