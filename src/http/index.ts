export { HTTP_ERRORS } from "./problem.ts";
export { startHttp, type HttpOptions, type HttpServer } from "./server.ts";
export { ROLES, createToken, newToken, openTokens, parseTokens, type Principal, type Role, type TokenStore } from "./tokens.ts";
