-- One database for each node's catalog, made when the server is first started.
CREATE DATABASE north;
CREATE DATABASE south;
CREATE DATABASE west;
