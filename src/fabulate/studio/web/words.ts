// Numbers and times as people read them.

export function number(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  const size = Math.abs(value);
  if (size >= 1000 && size < 1e9) return Math.round(value).toLocaleString("en-US");
  const text = value.toPrecision(4);
  return text.includes("e") ? text : String(Number(text));
}

export function lasting(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  return whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

export function counted(n: number, one: string, many = `${one}s`): string {
  return `${n.toLocaleString("en-US")} ${n === 1 ? one : many}`;
}

export function ago(seconds: number): string {
  const past = Math.max(0, Date.now() / 1000 - seconds);
  if (past < 90) return "just now";
  if (past < 5400) return `${Math.round(past / 60)} minutes ago`;
  return past < 129_600 ? `${Math.round(past / 3600)} hours ago` : `${Math.round(past / 86_400)} days ago`;
}

export function shape(dims: any[]): string {
  if (Array.isArray(dims[1])) return `${dims[3]}, up to ${dims[0].toLocaleString("en-US")} of ${dims[1].length - 1} symbols`; // of sequences
  const [channels, height, width] = dims;
  const colours: Record<number, string> = { 1: "gray", 2: "gray with alpha", 3: "colour", 4: "colour with alpha" };
  return `${height}×${width} ${colours[channels] ?? ""}`.trim();
}
