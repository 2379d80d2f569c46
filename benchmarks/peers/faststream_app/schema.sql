-- Where the results of the FastStream application stand; Celery makes its own table.
CREATE TABLE results (
    task_id uuid PRIMARY KEY,
    prediction smallint NOT NULL,
    probability double precision NOT NULL,
    finished_at timestamptz NOT NULL DEFAULT now()
);
