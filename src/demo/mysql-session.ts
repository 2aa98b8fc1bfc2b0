/** Connections of the demo to its own MySQL and MariaDB. */
import { createConnection, type Connection } from "mariadb";

/** In the demo's database; numbers as numbers where they are exact, dates and decimals as text, times in UTC. */
export async function connectDemo(url: string): Promise<Connection> {
  const { hostname, port, username, password, pathname } = new URL(url);
  const connection = await createConnection({
    host: hostname, port: Number(port), user: username, password, database: pathname.slice(1),
    allowPublicKeyRetrieval: true, bigIntAsNumber: true, insertIdAsNumber: true, dateStrings: true, timezone: "Z",
  });
  // A lost connection makes the next query reject; without a listener it would end the process.
  connection.on("error", () => {});
  return connection;
}

/** Work on a connection of its own. */
export async function withDemo<T>(url: string, work: (connection: Connection) => Promise<T>): Promise<T> {
  const connection = await connectDemo(url);
  try {
    return await work(connection);
  } finally {
    await connection.end();
  }
}
