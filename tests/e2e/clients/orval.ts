// The clients of orval: fetch and zod.
import { createTask, deleteTask, getTask, listTasks, signUp, updateTask } from "./orval-fetch";
import { listTasksResponse, tasksSignUpBody } from "./orval-zod";

// The client's addresses are paths.
const send = globalThis.fetch;
globalThis.fetch = (path, options) => send(`${process.env.API_URL}${path}`, options);

const unauthorized = await listTasks();
const email = `${crypto.randomUUID()}@example.com`;
const signedUp = await signUp({ email, password: "correct horse" });
if (signedUp.status !== 201) throw new Error(signedUp.data.error);
const options = { headers: { Authorization: `Bearer ${signedUp.data.token}` } };

const created = await createTask({ title: "Buy milk" }, options);
if (created.status !== 201) throw new Error(created.data.error);
const { task } = created.data;
await createTask({ title: "Read", description: "Slowly" }, options);
const all = listTasksResponse.parse((await listTasks({}, options)).data);
const page = await listTasks({ page: 2, per_page: 1 }, options);
if (page.status !== 200) throw new Error(`${page.status}`);
const ifMatch = { headers: { ...options.headers, "If-Match": created.headers.get("ETag")! } };
const changes = { description: "2 l", completed: true };
const updated = await updateTask(task.id, changes, ifMatch);
if (updated.status !== 200) throw new Error(updated.data.error);
const stale = await updateTask(task.id, changes, ifMatch);
const invalid = await createTask({ title: " " }, options);
const deleted = await deleteTask(task.id, options);
const gone = await getTask(task.id, options);
tasksSignUpBody.parse({ email, password: "Correct horse 7" });

console.log(
  JSON.stringify({
    signedUp: signedUp.data.user.email === email,
    created: [task.title, task.description, task.completed],
    all: [all.tasks.map((each) => each.title), all.pagination ?? null],
    page: [page.data.tasks.map((each) => each.title), page.data.pagination?.page, page.data.pagination?.pages],
    updated: [updated.data.task.title, updated.data.task.description, updated.data.task.completed],
    newer: updated.data.task.updated_at > task.updated_at,
    stale: stale.status === 412 ? [412, stale.data.error] : null,
    invalid: invalid.status === 400 ? [400, invalid.data.error, invalid.data.details?.[0]?.field] : null,
    unauthorized: unauthorized.status === 401 ? [401, unauthorized.data.error] : null,
    deleted: deleted.status,
    gone: gone.status === 404 ? [404, gone.data.error] : null,
  }),
);
