// The client of openapi-generator's typescript-fetch.
import { Configuration, type ErrorResponse, ResponseError, TodoApi } from "./typescript-fetch";

let token = "x";
const api = new TodoApi(new Configuration({ basePath: process.env.API_URL!, accessToken: () => token }));

async function failure(request: Promise<unknown>): Promise<[number, ErrorResponse]> {
  try {
    await request;
  } catch (error) {
    if (error instanceof ResponseError) return [error.response.status, await error.response.json()];
    throw error;
  }
  throw new Error("no failure");
}

const [unauthorized, reason] = await failure(api.listTasks());
const email = `${crypto.randomUUID()}@example.com`;
const session = await api.signUp({ todoRegister: { email, password: "correct horse" } });
token = session.token;

const created = await api.createTaskRaw({ todoCreateTask: { title: "Buy milk" } });
const { task } = await created.value();
const ifMatch = created.raw.headers.get("ETag")!;
await api.createTask({ todoCreateTask: { title: "Read", description: "Slowly" } });
const all = await api.listTasks();
const page = await api.listTasks({ page: 2, perPage: 1 });
const { id } = task;
const changes = { id, ifMatch, todoUpdateTask: { description: "2 l", completed: true } };
const updated = (await api.updateTask(changes)).task;
const [stale, conflict] = await failure(api.updateTask(changes));
const [invalid, fault] = await failure(api.createTask({ todoCreateTask: { title: " " } }));
const deleted = await api.deleteTaskRaw({ id });
const [gone, missing] = await failure(api.getTask({ id }));

console.log(
  JSON.stringify({
    signedUp: session.user.email === email,
    created: [task.title, task.description, task.completed],
    all: [all.tasks.map((each) => each.title), all.pagination ?? null],
    page: [page.tasks.map((each) => each.title), page.pagination?.page, page.pagination?.pages],
    updated: [updated.title, updated.description, updated.completed],
    newer: updated.updatedAt >= task.updatedAt, // a Date has no microseconds
    stale: [stale, conflict.error],
    invalid: [invalid, fault.error, fault.details?.[0]?.field],
    unauthorized: [unauthorized, reason.error],
    deleted: deleted.raw.status,
    gone: [gone, missing.error],
  }),
);
