// The clients of orval: fetch and zod.
import { createTask, deleteTask, getTask, listTasks, signUp, updateTask } from "./orval-fetch";
import { listTasksResponse, tasksSignUpBody } from "./orval-zod";

// The client's addresses are paths.
const send = globalThis.fetch;
globalThis.fetch = (path, options) => send(`${process.env.API_URL}${path}`, options);

const unauthorized = await listTasks();
const signedUp = await signUp(tasksSignUpBody.parse({ email: "alice@example.com", password: "Correct horse 7" }));
if (signedUp.status !== 201) throw new Error(signedUp.data.error);
const headers = { Authorization: `Bearer ${signedUp.data.token}` };

const created = await createTask({ title: "Buy milk" }, { headers });
if (created.status !== 201) throw new Error(created.data.error);
const { task } = created.data;
const all = listTasksResponse.parse((await listTasks({}, { headers })).data);
const page = await listTasks({ page: 2, per_page: 5 }, { headers });
if (page.status !== 200) throw new Error(`${page.status}`);
const changes = { description: "2 l", completed: true };
const updated = await updateTask(task.id, changes, { headers });
if (updated.status !== 200) throw new Error(updated.data.error);
const stale = await updateTask(task.id, changes, { headers: { ...headers, "If-Match": '"old"' } });
const invalid = await createTask({ title: " " }, { headers });
await deleteTask(task.id, { headers });
const gone = await getTask(task.id, { headers });

console.log(
  JSON.stringify({
    created: [task.title, task.description, task.completed],
    all: [all.tasks.map((each) => each.title), all.pagination ?? null],
    page: [page.data.tasks, page.data.pagination?.page, page.data.pagination?.per_page],
    updated: [updated.data.task.title, updated.data.task.description, updated.data.task.completed],
    stale: stale.status === 412 ? [412, stale.data.error] : null,
    invalid: invalid.status === 400 ? [400, invalid.data.error, invalid.data.details?.[0]?.field] : null,
    unauthorized: unauthorized.status === 401 ? [401, unauthorized.data.error] : null,
    gone: gone.status === 404 ? [404, gone.data.error] : null,
  }),
);
