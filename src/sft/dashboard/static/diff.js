// What changed between two texts, word by word. Own code: a word diff of short answers needs one
// table, and a library for it would be larger than this page.

const MOST_CELLS = 400_000; // of the table: about 630 words against 630, 10 ms
const ALIKE = 0.2; // texts that share less of their words were written anew

/** `text` as words and the space between them; joined they are `text` again. */
export const wordsOf = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

/** Number of equal items at the start of `a` and `b`; with `step` -1 at their end. */
function common(a, b, step, most) {
  const at = (list, i) => (step > 0 ? list[i] : list[list.length - 1 - i]);
  let n = 0;
  while (n < most && at(a, n) === at(b, n)) n += 1;
  return n;
}

/**
 * Which items of `a` and of `b` are in a longest common subsequence: two arrays of 0 and 1.
 * null where the table would have more than MOST_CELLS cells.
 */
function kept(a, b) {
  const n = a.length;
  const m = b.length;
  if (n * m > MOST_CELLS) return null;
  const width = m + 1;
  const length = new Uint16Array((n + 1) * width);
  for (let i = n - 1; i >= 0; i -= 1) {
    for (let j = m - 1; j >= 0; j -= 1) {
      const here = i * width + j;
      length[here] = a[i] === b[j]
        ? length[here + width + 1] + 1
        : Math.max(length[here + width], length[here + 1]);
    }
  }
  const inA = new Uint8Array(n);
  const inB = new Uint8Array(m);
  for (let i = 0, j = 0; i < n && j < m;) {
    if (a[i] === b[j]) { inA[i] = 1; inB[j] = 1; i += 1; j += 1; }
    else if (length[(i + 1) * width + j] >= length[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return [inA, inB];
}

/** Neighbours of one kind become one part; space between changed words is changed too. */
function parts(words, isKept) {
  const found = [];
  const space = (i) => /^\s/.test(words[i]);
  const isChanged = (i) => !isKept(i) || (space(i) && i > 0 && i < words.length - 1 && !isKept(i - 1) && !isKept(i + 1));
  words.forEach((word, i) => {
    const changed = isChanged(i);
    const last = found[found.length - 1];
    if (last && last.changed === changed) last.text += word;
    else found.push({ text: word, changed });
  });
  return found;
}

/**
 * `{ kind, before, after }` with `before` and `after` arrays of `{ text, changed }`.
 *
 * kind: `same`; `some` (parts that differ are marked); `new` (fewer than a fifth of the words are
 * shared, so that marking words would mark all); `long` (too long to compare). In `new` and `long`
 * nothing is marked.
 */
export function diffWords(before, after) {
  const whole = (kind) => ({
    kind,
    before: [{ text: before, changed: false }],
    after: [{ text: after, changed: false }],
  });
  if (before === after) return whole("same");
  const a = wordsOf(before);
  const b = wordsOf(after);
  const most = Math.min(a.length, b.length);
  const head = common(a, b, 1, most);
  const tail = common(a, b, -1, most - head);
  const middle = kept(a.slice(head, a.length - tail), b.slice(head, b.length - tail));
  if (!middle) return whole("long");
  const isKept = (flags, size) => (i) => i < head || i >= size - tail || flags[i - head] === 1;
  const keptA = isKept(middle[0], a.length);
  const solid = a.filter((word) => /\S/.test(word)).length;
  const shared = a.filter((word, i) => keptA(i) && /\S/.test(word)).length;
  const larger = Math.max(solid, b.filter((word) => /\S/.test(word)).length, 1);
  if (shared / larger < ALIKE) return whole("new");
  return { kind: "some", before: parts(a, keptA), after: parts(b, isKept(middle[1], b.length)) };
}
