// Addresses within the page, and of what the server has.

import { query } from "./api";

export const to = (screen: string, values: Record<string, string | null | undefined> = {}) => query(`#/${screen}`, values);
export const file = (path: string, version: string | number = "") => query("/api/file", { path, v: version || null });
export const cover = (path: string) => query("/api/cover", { path });
export const thumbnail = (path: string, side: number) => query("/api/thumbnail", { path, side });
/** A report, below whose address its own links work. */
export const report = (path: string) => `/api/page/${path.split("/").map(encodeURIComponent).join("/")}`;
