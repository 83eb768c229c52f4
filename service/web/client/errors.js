/** An error of the service, with its `code`; or of this client: "unreachable", "unsupported". */
export class PoseError extends Error {
  constructor(code, message, { status = 0, retryAfter = null, field = null, requestId = null } = {}) {
    super(message);
    this.name = "PoseError";
    Object.assign(this, { code, status, retryAfter, field, requestId });
  }
}

export const invalid = (field, message) => new PoseError("invalid_argument", `${field}: ${message}`, { field });

/** An answer or an entry of several; what it says of an error as a `PoseError`. */
export function withError(entry, requestId = null) {
  if (!entry.error) return entry;
  const { code, detail, field = null, retry_after_s: retryAfter = null } = entry.error;
  return { ...entry, error: new PoseError(code, detail, { field, retryAfter, requestId }) };
}

/** What a failed `fetch` of `address` means. Browsers hide the cause, Node names it. */
export function unreachable(error, address) {
  const { code, message } = error.cause ?? {};
  if (/CERT|TLS|SSL|SIGNATURE|ALTNAME/.test(code)) {
    return new PoseError("unreachable", `The service's certificate is not accepted: ${message || code}.`);
  }
  const page = globalThis.location?.origin;
  if (page && page !== new URL(address).origin) {
    return new PoseError("unreachable", "The service cannot be reached: it is down, its certificate is not "
      + `accepted, or its SDPOSE_CORS_ORIGINS does not name ${page}.`);
  }
  return new PoseError("unreachable", `The service cannot be reached${code ? ` (${code})` : ""}.`);
}

export const broken = () => new PoseError("unreachable", "The answer broke off before its end.");
