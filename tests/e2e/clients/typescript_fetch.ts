// The client of openapi-generator's typescript-fetch.
import { Configuration, type ErrorResponse, ResponseError, TodoApi } from "./typescript-fetch";

let token = "";
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
({ token } = await api.signUp({ todoRegister: { email: "alice@example.com", password: "correct horse" } }));
const { task } = await api.createTask({ todoCreateTask: { title: "Buy milk" } });
const all = await api.listTasks();
const page = await api.listTasks({ page: 2, perPage: 5 });
const { id } = task;
const todoUpdateTask = { description: "2 l", completed: true };
const updated = (await api.updateTask({ id, todoUpdateTask })).task;
const [stale, conflict] = await failure(api.updateTask({ id, todoUpdateTask, ifMatch: '"old"' }));
const [invalid, problem] = await failure(api.createTask({ todoCreateTask: { title: " " } }));
await api.deleteTask({ id });
const [gone, missing] = await failure(api.getTask({ id }));

console.log(
  JSON.stringify({
    created: [task.title, task.description, task.completed],
    all: [all.tasks.map((each) => each.title), all.pagination ?? null],
    page: [page.tasks, page.pagination?.page, page.pagination?.perPage],
    updated: [updated.title, updated.description, updated.completed],
    stale: [stale, conflict.error],
    invalid: [invalid, problem.error, problem.details?.[0]?.field],
    unauthorized: [unauthorized, reason.error],
    gone: [gone, missing.error],
  }),
);
