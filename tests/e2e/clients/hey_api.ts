// The client of @hey-api/openapi-ts, with its zod schemas.
import { createTask, deleteTask, getTask, listTasks, signUp, updateTask } from "./hey-api";
import { client } from "./hey-api/client.gen";
import { zTasksRegister, zTodoTaskList } from "./hey-api/zod.gen";

let token = "x";
client.setConfig({ baseUrl: process.env.API_URL!, auth: () => token });

const unauthorized = await listTasks();
const email = `${crypto.randomUUID()}@example.com`;
const { data: session } = await signUp({ body: { email, password: "correct horse" }, throwOnError: true });
token = session.token;

const created = await createTask({ body: { title: "Buy milk" }, throwOnError: true });
const { task } = created.data;
const headers = { "If-Match": created.response.headers.get("ETag")! };
await createTask({ body: { title: "Read", description: "Slowly" }, throwOnError: true });
const path = { id: task.id };
const all = zTodoTaskList.parse((await listTasks({ throwOnError: true })).data);
const page = (await listTasks({ query: { page: 2, per_page: 1 }, throwOnError: true })).data;
const body = { description: "2 l", completed: true };
const updated = (await updateTask({ path, headers, body, throwOnError: true })).data.task;
const stale = await updateTask({ path, headers, body });
const invalid = await createTask({ body: { title: " " } });
const deleted = await deleteTask({ path });
const gone = await getTask({ path });
zTasksRegister.parse({ email, password: "Correct horse 7" });

console.log(
  JSON.stringify({
    signedUp: session.user.email === email,
    created: [task.title, task.description, task.completed],
    all: [all.tasks.map((each) => each.title), all.pagination ?? null],
    page: [page.tasks.map((each) => each.title), page.pagination?.page, page.pagination?.pages],
    updated: [updated.title, updated.description, updated.completed],
    newer: updated.updated_at > task.updated_at,
    stale: [stale.response.status, stale.error?.error],
    invalid: [invalid.response.status, invalid.error?.error, invalid.error?.details?.[0]?.field],
    unauthorized: [unauthorized.response.status, unauthorized.error?.error],
    deleted: deleted.response.status,
    gone: [gone.response.status, gone.error?.error],
  }),
);
