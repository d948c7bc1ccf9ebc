-- The highest token that was ever seen, for each Lease.
CREATE TABLE fence (lease text PRIMARY KEY, token numeric NOT NULL);

-- What the example protects, and what it does not.
CREATE TABLE counter (name text PRIMARY KEY, value bigint NOT NULL, written_by text NOT NULL);
INSERT INTO counter VALUES ('fenced', 0, 'nobody'), ('unfenced', 0, 'nobody');
