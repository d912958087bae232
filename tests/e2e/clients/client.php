<?php
// The client of openapi-generator's php.
use OpenAPI\Client\Api\TodoApi;
use OpenAPI\Client\ApiException;
use OpenAPI\Client\Configuration;
use OpenAPI\Client\Model\TodoCreateTask;
use OpenAPI\Client\Model\TodoRegister;
use OpenAPI\Client\Model\TodoUpdateTask;

require '/usr/share/php/GuzzleHttp/autoload.php';
spl_autoload_register(function (string $class): void {
    $file = __DIR__ . '/php/lib/' . str_replace(['OpenAPI\\Client\\', '\\'], ['', '/'], $class) . '.php';
    if (is_file($file)) {
        require $file;
    }
});

function failure(callable $request): array
{
    try {
        $request();
    } catch (ApiException $error) {
        $body = $error->getResponseObject();
        $fields = array_map(fn ($detail) => $detail->getField(), $body->getDetails() ?? []);
        return [$error->getCode(), $body->getError(), ...$fields];
    }
    throw new Exception('no failure');
}

$configuration = (new Configuration())->setHost(getenv('API_URL'));
$api = new TodoApi(null, $configuration);
$unauthorized = failure(fn () => $api->listTasks());
$session = $api->signUp(new TodoRegister(['email' => 'alice@example.com', 'password' => 'correct horse']));
$configuration->setAccessToken($session->getToken());

$task = $api->createTask(new TodoCreateTask(['title' => 'Buy milk']))->getTask();
$id = $task->getId();
$all = $api->listTasks();
$page = $api->listTasks(2, 5);
$changes = new TodoUpdateTask(['description' => '2 l', 'completed' => true]);
$updated = $api->updateTask($id, $changes)->getTask();
$stale = failure(fn () => $api->updateTask($id, $changes, '"old"'));
$invalid = failure(fn () => $api->createTask(new TodoCreateTask(['title' => ' '])));
$api->deleteTask($id);
$gone = failure(fn () => $api->getTask($id));

echo json_encode([
    'created' => [$task->getTitle(), $task->getDescription(), $task->getCompleted()],
    'all' => [array_map(fn ($each) => $each->getTitle(), $all->getTasks()), $all->getPagination()],
    'page' => [$page->getTasks(), $page->getPagination()->getPage(), $page->getPagination()->getPerPage()],
    'updated' => [$updated->getTitle(), $updated->getDescription(), $updated->getCompleted()],
    'stale' => $stale,
    'invalid' => $invalid,
    'unauthorized' => $unauthorized,
    'gone' => $gone,
]);
