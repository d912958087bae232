// Fastify with pg's pool and handwritten SQL; JSON schemas validate the bodies and serialize the responses.
import jwt from '@fastify/jwt'
import Fastify from 'fastify'
import pg from 'pg'
import { randomUUID } from 'node:crypto'

const COLUMNS = 'id, title, description, completed, user_id, created_at, updated_at'
const LIST = `
  SELECT total, page.* FROM (SELECT count(*)::int AS total FROM tasks WHERE user_id = $1) AS counted
  LEFT JOIN (SELECT ${COLUMNS} FROM tasks WHERE user_id = $1
             ORDER BY created_at DESC, id DESC LIMIT $2 OFFSET $3) AS page ON true
  ORDER BY page.created_at DESC, page.id DESC`
const ONE = `SELECT ${COLUMNS} FROM tasks WHERE id = $1 AND user_id = $2`
const CREATE = `INSERT INTO tasks VALUES ($1, $2, $3, $4, false, $5, $5) RETURNING ${COLUMNS}`
const UPDATE = `
  UPDATE tasks SET title = coalesce($3, title), description = CASE WHEN $4::boolean THEN $5 ELSE description END,
    completed = coalesce($6, completed), updated_at = $7
  WHERE id = $1 AND user_id = $2 RETURNING ${COLUMNS}`

const text = { type: 'string' }
const time = { type: 'string', format: 'date-time' }
const count = { type: 'integer' }
const object = properties => ({ type: 'object', properties })
const task = object({
  id: text, title: text, description: { type: 'string', nullable: true }, completed: { type: 'boolean' },
  user_id: text, created_at: time, updated_at: time
})
const title = { type: 'string', minLength: 1, maxLength: 100 }
const description = { type: 'string', nullable: true, maxLength: 500 }
const params = object({ id: { type: 'string', format: 'uuid' } })
const one = object({ task })

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 })
const app = Fastify({ logger: true })
app.register(jwt, { secret: process.env.BETTER_AUTH_SECRET, verify: { algorithms: ['HS256'] } })

app.register(async tasks => {
  tasks.addHook('onRequest', request => request.jwtVerify())

  tasks.get('/', {
    schema: {
      querystring: object({
        page: { type: 'integer', minimum: 1, default: 1 },
        per_page: { type: 'integer', minimum: 1, maximum: 100, default: 20 }
      }),
      response: {
        200: object({
          tasks: { type: 'array', items: task },
          pagination: object({ page: count, per_page: count, total: count, pages: count })
        })
      }
    }
  }, async request => {
    const { page, per_page } = request.query
    const { rows } = await pool.query(LIST, [request.user.sub, per_page, (page - 1) * per_page])
    const { total } = rows[0]
    return {
      tasks: rows.filter(row => row.id !== null),
      pagination: { page, per_page, total, pages: Math.ceil(total / per_page) }
    }
  })

  tasks.post('/', {
    schema: { body: { ...object({ title, description }), required: ['title'] }, response: { 201: one } }
  }, async (request, reply) => {
    const { title, description = null } = request.body
    const { rows } = await pool.query(CREATE, [randomUUID(), request.user.sub, title, description, new Date()])
    return reply.code(201).send({ task: rows[0] })
  })

  tasks.get('/:id', { schema: { params, response: { 200: one } } }, async (request, reply) => {
    const { rows } = await pool.query(ONE, [request.params.id, request.user.sub])
    return rows.length ? { task: rows[0] } : reply.code(404).send({ error: 'Task not found' })
  })

  tasks.put('/:id', {
    schema: { params, body: object({ title, description, completed: { type: 'boolean' } }), response: { 200: one } }
  }, async (request, reply) => {
    const { title, description, completed } = request.body
    const values = [title, description !== undefined, description, completed, new Date()]
    const { rows } = await pool.query(UPDATE, [request.params.id, request.user.sub, ...values])
    return rows.length ? { task: rows[0] } : reply.code(404).send({ error: 'Task not found' })
  })
}, { prefix: '/tasks' })

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
