import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

const api = createClient<paths>();
const one = { params: { path: { id: "8b4f1c1e-5d0b-4f6e-9d5c-0d3c1b7a2e11" } } };

await api.GET("/api/task"); // TS2554
await api.PATCH("/api/tasks/{id}", one); // TS2345
await api.GET("/api/tasks/{id}", { params: { path: { ID: "x" } } }); // TS2561
await api.GET("/api/tasks", { params: { query: { page: "2" } } }); // TS2322
await api.POST("/api/tasks"); // TS2554
await api.POST("/api/tasks", { body: {} }); // TS2322
await api.POST("/api/tasks", { body: { titel: "Read" } }); // TS2561
await api.POST("/api/tasks", { body: { title: null } }); // TS2322
const changes: components["schemas"]["TodoUpdateTask"] = { compleetd: true }; // TS2561
await api.PUT("/api/tasks/{id}", { ...one, body: { completed: "yes" } }); // TS2322

const { data, error } = await api.GET("/api/tasks/{id}", one);
data.task; // TS18048
data?.task.titel; // TS2551
data?.task.description.length; // TS18047
error?.message; // TS2339
(await api.GET("/api/tasks")).data?.pagination.pages; // TS2532
