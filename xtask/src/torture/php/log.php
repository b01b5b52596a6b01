<?php
// What a client noted, one JSON object a line, written at once; times are of the monotonic clock, as in the other clients' files.

/** Writes one line. */
function note(string $kind, array $members): void
{
    static $file = null;
    global $log;
    $file ??= fopen($log, 'ab');
    fwrite($file, json_encode(['t' => intdiv(hrtime(true), 1000), 'e' => $kind] + $members) . "\n");
}

/**
 * What the client calls a failure. A broker or a proxy that is not there right now is none: the scripts try again. Everything else is written down.
 */
function fail(string $sentence): never
{
    if (!str_starts_with($sentence, 'no upgrade') && !str_starts_with($sentence, 'no broker')) {
        note('wrong', ['what' => $sentence]);
    }
    throw new RuntimeException($sentence);
}
