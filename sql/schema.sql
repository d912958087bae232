BEGIN;

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE users (
    id UUID NOT NULL, 
    email VARCHAR(254) NOT NULL, 
    password_hash TEXT NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    CONSTRAINT users_pkey PRIMARY KEY (id)
);

CREATE UNIQUE INDEX users_email_key ON users (lower(email));

CREATE TABLE tasks (
    id UUID NOT NULL, 
    user_id UUID NOT NULL, 
    title VARCHAR(255) NOT NULL, 
    description TEXT, 
    completed BOOLEAN DEFAULT false NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    CONSTRAINT tasks_pkey PRIMARY KEY (id), 
    CONSTRAINT tasks_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE INDEX tasks_user_id_created_at_id_idx ON tasks (user_id, created_at DESC, id DESC);

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING alembic_version.version_num;

-- Running upgrade 0001 -> 0002

SET LOCAL lock_timeout = '2s';

ALTER TABLE tasks ADD COLUMN IF NOT EXISTS idempotency_key VARCHAR(255) COLLATE "C";

ALTER TABLE tasks ADD COLUMN IF NOT EXISTS idempotency_hash VARCHAR(64);

CREATE UNIQUE INDEX IF NOT EXISTS tasks_user_id_idempotency_key_key ON tasks (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;

ALTER TABLE users ALTER COLUMN email TYPE VARCHAR(254) COLLATE "C";

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';

COMMIT;

