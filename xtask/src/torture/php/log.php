<?php
// What a client noted, one JSON object a line, written at once; times are of the monotonic clock, as in the other clients' files.

/** Writes one line. */
function note(string $kind, array $members): void
{
    static $file = null;
    global $log;
    $file ??= fopen($log, 'ab');
    fwrite($file, json_encode(['t' => intdiv(hrtime(true), 1000), 'e' => $kind] + $members, JSON_INVALID_UTF8_SUBSTITUTE) . "\n");
}

/**
 * What the client calls a failure. A broker or a proxy that is not there right now is none: the scripts try again. Nor is a frame that was lost with
 * the head: a script that was frozen just then reads late, whatever the broker does. Everything else is written down.
 */
function fail(string $sentence): never
{
    $excused = preg_match('/^(no upgrade|no broker|lost behind the head)/', $sentence) === 1;
    note($excused ? 'note' : 'wrong', ['what' => $sentence]);
    throw new RuntimeException($sentence);
}
