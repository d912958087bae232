// The client of @hey-api/openapi-ts, with its zod schemas.
import { createTask, deleteTask, getTask, listTasks, signUp, updateTask } from "./hey-api";
import { client } from "./hey-api/client.gen";
import { zTasksRegister, zTodoTaskList } from "./hey-api/zod.gen";

client.setConfig({ baseUrl: process.env.API_URL! });
const unauthorized = await listTasks();
const account = zTasksRegister.parse({ email: "alice@example.com", password: "Correct horse 7" });
const { token } = (await signUp({ body: account, throwOnError: true })).data;
client.setConfig({ auth: () => token });

const { task } = (await createTask({ body: { title: "Buy milk" }, throwOnError: true })).data;
const path = { id: task.id };
const all = zTodoTaskList.parse((await listTasks({ throwOnError: true })).data);
const page = (await listTasks({ query: { page: 2, per_page: 5 }, throwOnError: true })).data;
const body = { description: "2 l", completed: true };
const updated = (await updateTask({ path, body, throwOnError: true })).data.task;
const stale = await updateTask({ path, body, headers: { "If-Match": '"old"' } });
const invalid = await createTask({ body: { title: " " } });
await deleteTask({ path, throwOnError: true });
const gone = await getTask({ path });

console.log(
  JSON.stringify({
    created: [task.title, task.description, task.completed],
    all: [all.tasks.map((each) => each.title), all.pagination ?? null],
    page: [page.tasks, page.pagination?.page, page.pagination?.per_page],
    updated: [updated.title, updated.description, updated.completed],
    stale: [stale.response.status, stale.error?.error],
    invalid: [invalid.response.status, invalid.error?.error, invalid.error?.details?.[0]?.field],
    unauthorized: [unauthorized.response.status, unauthorized.error?.error],
    gone: [gone.response.status, gone.error?.error],
  }),
);
